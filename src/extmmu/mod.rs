//! External MMUs to use, to read, and to copy from.

mod bill;
pub mod gru;
pub mod kvm;
mod recorder;
mod tlb;
pub mod xpmem;

pub use bill::{Bill, Meter};
pub use recorder::{Recorder, Told};
pub use tlb::{IsHuge, Tlb};
