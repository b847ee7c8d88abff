//! The models of external MMUs in this process.

#[path = "../common/mod.rs"]
mod common;

mod device_numbers;
#[cfg(feature = "replay")]
mod devices;
mod gru;
mod kvm;
mod pfn_cache;
mod pinned;
mod xpmem;
