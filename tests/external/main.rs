//! The models of external MMUs in this process.

mod device_numbers;
#[cfg(feature = "replay")]
mod devices;
mod gru;
mod kvm;
mod pfn_cache;
mod xpmem;
