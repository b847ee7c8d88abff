//! The models of external MMUs in this process.

#[path = "../common/mod.rs"]
mod common;

mod acting;
mod beside;
mod device_numbers;
#[cfg(feature = "replay")]
mod devices;
mod gru;
#[cfg(feature = "vm-memory")]
mod guest_memory;
mod host_mmu;
mod kvm;
mod odp;
mod pfn_cache;
mod pinned;
mod sva;
mod xpmem;
