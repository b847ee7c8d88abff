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

mod access;
mod age;
mod audit;
mod brk;
mod collapse;
mod copy_between;
mod cow;
mod detached;
mod discard;
mod exec;
mod exit;
mod export;
mod fault;
mod fault_file;
mod file_bytes;
mod flags;
mod fork;
mod fork_shared;
mod fremap;
mod guard;
mod huge;
mod hugetlb;
mod inspect;
mod ksm;
mod ksmd;
mod label;
mod later;
mod layout;
mod machine;
mod madvise;
mod maps;
mod merge;
mod mergeable;
mod migrate;
mod mlock;
mod mmap;
mod mmap_lock;
mod mprotect;
mod mremap;
mod mremap_move;
mod msync;
mod munmap;
mod nonlinear;
mod not_present;
mod page_table;
mod pageout;
mod patience;
mod placement;
mod populate;
mod pte;
#[cfg(feature = "internals")]
pub mod raw;
mod register;
mod relocate;
mod remove;
mod resolve;
mod rmap;
mod space;
mod split;
mod split_folio;
mod swap_in;
mod try_to_unmap;
mod vma;
mod vma_tree;
mod walk;
mod will_need;
mod window;

pub use detached::Detached;
pub use exec::Segment;
pub use flags::{
    Advice, MapFlags, MlockFlags, MlockallFlags, MremapFlags, MsyncFlags, Prot, VmFlags,
};
pub use fork_shared::ForkMode;
pub use fremap::RemapMode;
pub use guard::{Lease, MmapReadGuard, MmapWriteGuard};
pub use inspect::Mapping;
pub use ksmd::Merger;
pub use layout::Limits;
pub use machine::{Machine, MachineConfig};
pub use maps::{MapsLine, PageState};
pub use mmap::MmapArgs;
pub use mremap::MremapArgs;
pub use pte::Pte;
pub use space::Mm;
pub use walk::Walker;
pub use window::{InvalidationWindow, PteSlot, PteTxn};
