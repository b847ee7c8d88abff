//! The models of external MMUs in this process.

#[path = "../common/mod.rs"]
mod common;

mod acting;
mod beside;
mod device_numbers;
#[cfg(feature = "replay")]
mod devices;
#[cfg(all(feature = "host-mapping", feature = "vm-memory", target_os = "linux"))]
mod gaps;
mod gpu;
mod gru;
mod guest_memfd;
#[cfg(feature = "vm-memory")]
mod guest_memory;
#[cfg(all(feature = "host-mapping", target_os = "linux"))]
mod host_mapping;
#[cfg(all(feature = "host-mapping", target_os = "linux"))]
mod host_mapping_files;
mod host_mmu;
#[cfg(feature = "vm-memory")]
mod iommu;
mod iommufd_selftests;
mod kvm;
mod kvm_selftests;
#[cfg(feature = "vm-memory")]
mod leases;
mod odp;
mod pfn_cache;
mod pinned;
mod regcache;
#[cfg(feature = "vm-memory")]
mod ring;
#[cfg(feature = "serde")]
mod serialized;
#[cfg(all(feature = "host-mapping", target_os = "linux"))]
#[path = "../common/skipped.rs"]
mod skipped;
mod sva;
#[cfg(all(feature = "vm-memory", unix))]
mod vhost_iotlb;
mod xpmem;
