//! Scripts as bytes, for what makes seeds of recordings. What the targets hold inputs against is in the library's test kit.

pub use emmu::testkit::fuzz::{decode, encode};
