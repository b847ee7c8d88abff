//! From a frame back to its mappings.
//!
//! Guarantee: whoever holds the lock of a reverse map knows every address space, and every address in it, that maps a
//! page of its owner, and none of these changes meanwhile. An owner is a memory object ([`Mapping`]) or a node of
//! anonymous memory (`AnonVma`); a frame names its owner and its page offset there.
//!
//! | file | |
//! | --- | --- |
//! | `anon` | the family tree of anonymous memory, through forks |
//! | `mapping` | the mappings of an object |
//! | `large` | huge pages of objects |
//! | `tree` | VMAs by page offset, and the walk over them |
//! | `space` | what can be asked of an address space on the way |
//! | `walk` | from a frame to all that may map it |
//! | `exported` | drivers that are told by frame |
//! | `registry` | owners by number |
//!
//! Which VMAs may merge depends on `AnonVma`, so its life cycle follows Linux's to the letter.

mod anon;
mod exported;
mod large;
mod mapping;
mod registry;
mod space;
mod tree;
mod walk;

pub(crate) use anon::{AnonLink, AnonVma};
pub use exported::{ExportOrder, ExportRegistration, RmapNotifier};
pub(crate) use large::split_object_huge;
pub use mapping::Mapping;
pub(crate) use mapping::{Evict, FileLink};
pub(crate) use registry::{OwnerRef, Registry};
pub use space::EvenCows;
pub(crate) use space::{
    Blocking, MappedAt, RmapCx, RmapTarget, Unmap, UnmapRefused, VmaPlacement, Young,
};
pub(crate) use tree::Frozen;
pub(crate) use walk::{
    Usage, referenced, restore, split_huge, split_huge_of, unmap_frame, walk_frame,
};
