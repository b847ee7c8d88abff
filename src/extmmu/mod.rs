//! External MMUs to use, to read, and to copy from.

mod recorder;

pub use recorder::{Recorder, Told};
