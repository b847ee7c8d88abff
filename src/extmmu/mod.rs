//! External MMUs to use, to read, and to copy from: models of drivers that Linux has or had, and
//! the parts that they share.
//!
//! They differ in how they answer a window. KVM and the GRU spin, so they answer every window at
//! once; XPmem waits for other processes, so it lives on windows that may sleep. A device behind an
//! IOMMU that pins is told of no window, and one behind an IOMMU that walks the page table gets
//! flushes. A driver of your own begins with [`driver`](crate::driver).
//!
//! | file | holds |
//! | --- | --- |
//! | `kvm` | page tables of a virtual machine: gates that spin, two page sizes, dirty logging, guest files |
//! | `gru` | TLBs without page tables: entries that nothing but the notifier keeps true |
//! | `xpmem` | memory that other processes map: a gate that sleeps, answers from afar, two passes |
//! | `pinned` | devices behind an IOMMU whose pages are pinned: no notifier, long-term pins |
//! | `odp` | RDMA regions that page on demand: page lists, page faults, implicit regions |
//! | `sva` | devices behind an IOMMU that walks the process's page table: flushes, page requests |
//! | `gpu` | a GPU that mirrors an address space: two page sizes, TLBs, memory of its own |
//! | `regcache` | a cache of registered regions: pins by interval, eviction, a monitor |
//! | `host_mmu` | the host's own accesses, by addresses that a window waits for |
//! | `host_mapping` | memory at addresses in a row of the host (feature `host-mapping`, on Linux) |
//! | `iommu` | an IOMMU for rust-vmm's devices: slices are leases of their pages (feature `vm-memory`) |
//! | `dirty_pages` | dirty pages for rust-vmm's devices, from KVM's log and from slices (feature `vm-memory`) |
//! | `vhost_iotlb` | the IOTLB of a vhost back-end, by messages over sockets (feature `vm-memory`, Unix) |
//! | `vm_memory` | the memory of a process as guest memory of rust-vmm (feature `vm-memory`) |
//! | `recorder` | an MMU that translates nothing and records its callbacks |
//! | `tlb` | a set-associative TLB for pages of 4 KiB and 2 MiB |
//! | `fault_queue` | page faults of a device that threads work off, each answered once |
//! | `mistakes` | the mistakes that a model can be made with |
//! | `fault_queue_models` | loom models of that |
//! | `bill` | counts of the windows, faults and retries of one MMU |

#[macro_use]
mod mistakes;

mod bill;
#[cfg(feature = "vm-memory")]
pub mod dirty_pages;
mod fault_queue;
#[cfg(all(test, loom))]
mod fault_queue_models;
pub mod gpu;
pub mod gru;
#[cfg(all(feature = "host-mapping", target_os = "linux"))]
#[allow(
    clippy::disallowed_methods,
    reason = "its threads are its own, and wait for clients"
)]
mod host_mapping;
mod host_mmu;
#[cfg(feature = "vm-memory")]
pub mod iommu;
pub mod kvm;
pub mod odp;
pub mod pinned;
mod recorder;
pub mod regcache;
pub mod sva;
mod tlb;
#[cfg(all(feature = "vm-memory", unix))]
pub mod vhost_iotlb;
#[cfg(feature = "vm-memory")]
pub mod vm_memory;
#[allow(
    clippy::disallowed_methods,
    reason = "partitions have threads of their own"
)]
pub mod xpmem;

pub use crate::driver::References;
pub use bill::{Bill, Meter, Span};
#[cfg(all(feature = "host-mapping", feature = "vm-memory", target_os = "linux"))]
pub use host_mapping::HostRegion;
#[cfg(all(feature = "host-mapping", target_os = "linux"))]
pub use host_mapping::{HostMapping, HostMappingError};
pub use host_mmu::{HostMmu, HostSlice, SliceError};
pub use recorder::{Recorded, Recorder};
pub use tlb::{PageSize, Tlb};
