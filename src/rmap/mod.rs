//! From a frame back to its mappings.
//!
//! An [`AnonVma`] stands for the anonymous pages that one VMA, and what was split from or forked off it, may
//! share. Which VMAs may merge depends on it, so its life cycle follows Linux's to the letter.

mod anon;

pub(crate) use anon::{AnonLink, AnonVma};
