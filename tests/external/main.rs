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
#[cfg(feature = "vm-memory")]
mod iommu;
mod kvm;
mod pfn_cache;
mod pinned;
#[cfg(feature = "serde")]
mod serialized;
#[cfg(all(feature = "vm-memory", unix))]
mod vhost_iotlb;
mod xpmem;
