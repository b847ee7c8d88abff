//! The address space: VMAs, page table, faults, and one file for each operation.
//!
//! | question | file |
//! | --- | --- |
//! | when do VMAs merge, how are they split? | `merge`, `split` |
//! | where does a mapping go? | `placement` |
//! | where is copy-on-write decided? | `cow` (faults), `fork` (sharing) |
//! | where does a window open? | `window`; every opening goes through a [`Lease`] of `guard` |
//! | which table pages exist? | `page_table` |
//! | which lock guards a VMA? | the mmap lock, in `mmap_lock` and `guard`; entries, the lock of their leaf in `page_table` |

mod calls;
mod edit;
mod entry;
mod external;
mod fault;
mod guard;
mod large;
mod lock;
mod machine;
mod page_table;
mod reverse;
mod space;
mod vma;
mod window;

pub use calls::inspect::VmaInfo;
pub use calls::install::Segment;
pub use calls::proc_maps::{MapsLine, PageState};
pub use entry::args::{MmapArgs, MremapArgs};
pub use entry::flags::{
    Advice, MapFlags, MlockFlags, MlockallFlags, MremapFlags, MsyncFlags, Prot, RemapMode, VmFlags,
};
pub use entry::pte::Pte;
pub use entry::release::Detached;
pub use external::walker::Walker;
pub use guard::{Lease, MmapReadGuard, MmapWriteGuard};
pub use machine::{ForkMode, Machine, MachineConfig};
#[cfg(feature = "internals")]
pub use page_table::bench_table as raw;
pub use reverse::ksmd::Merger;
pub use space::Mm;
pub use vma::layout::Limits;
pub use window::{InvalidationWindow, PteSlot, PteTxn};
