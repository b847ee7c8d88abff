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
//! | `kvm` | page tables of a virtual machine: gates that spin, two page sizes, dirty logging |
//! | `gru` | TLBs without page tables: entries that nothing but the notifier keeps true |
//! | `xpmem` | memory that other processes map: a gate that sleeps, answers from afar, two passes |
//! | `pinned` | devices behind an IOMMU whose pages are pinned: no notifier, long-term pins |
//! | `odp` | RDMA regions that page on demand: page lists, page faults, implicit regions |
//! | `sva` | devices behind an IOMMU that walks the process's page table: flushes, page requests |
//! | `host_mmu` | the host's own accesses, by addresses that a window waits for |
//! | `vm_memory` | the memory of a process as guest memory of rust-vmm (feature `vm-memory`) |
//! | `recorder` | an MMU that translates nothing and records its callbacks |
//! | `tlb` | a set-associative TLB for pages of 4 KiB and 2 MiB |
//! | `bill` | counts of the windows, faults and retries of one MMU |

mod bill;
pub mod gru;
mod host_mmu;
pub mod kvm;
pub mod odp;
pub mod pinned;
mod recorder;
pub mod sva;
mod tlb;
#[cfg(feature = "vm-memory")]
pub mod vm_memory;
#[allow(
    clippy::disallowed_methods,
    reason = "partitions have threads of their own"
)]
pub mod xpmem;

pub use crate::driver::References;
pub use bill::{Bill, Meter, Span};
pub use host_mmu::{HostMmu, HostSlice, SliceError};
pub use recorder::{Recorded, Recorder};
pub use tlb::{PageSize, Tlb};
