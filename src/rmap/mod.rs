//! From a frame back to its mappings.
//!
//! Guarantee: the holder of a reverse map's lock knows every address space, and every address in
//! it, that maps a page of the owner, and none of these changes while the lock is held. An owner is
//! a memory object ([`Mapping`]) or a node of anonymous memory (`AnonVma`); a frame names its owner
//! by number, and its page offset there (docs/adr/0005-reverse-maps-know-the-new-place-first.md).
//!
//! | file | holds |
//! | --- | --- |
//! | `walk` | walks from a locked frame to everything that may map it |
//! | `anon` | the family tree of anonymous memory, through forks |
//! | `mapping` | the reverse map of an object |
//! | `large` | … its huge pages and folios: dropped from all page tables at once |
//! | `merged` | the reverse map of a merged page |
//! | `registry` | owners by number |
//! | `owner` | the trait of an owner |
//! | `tree` | VMAs by page offset, and walks over them |
//! | `new_place` | the place of a VMA that moves and keeps its records |
//! | `after_walks` | VMAs that are dropped during a walk leave the trees after it |
//! | `exported` | drivers that are notified by frame |
//! | `target` | the trait of an address space, as a walk uses it |
//!
//! The merging of VMAs depends on `AnonVma`, so its life cycle follows Linux's exactly.

mod after_walks;
mod anon;
mod exported;
mod large;
mod mapping;
mod merged;
mod new_place;
mod owner;
mod registry;
mod target;
mod tree;
mod walk;

pub(crate) use anon::{AnonLink, AnonTrees, AnonVma};
pub use exported::{ExportOrder, ExportRegistration, RmapNotifier};
pub(crate) use large::{split_object_folio, unmap_object_folio};
pub use mapping::Mapping;
pub(crate) use mapping::{FileLink, FileTree, PageKeeper};
pub(crate) use merged::{MergedPage, MergedPlace};
pub(crate) use new_place::NewPlace;
pub(crate) use owner::{Folio, FrameOwner};
pub(crate) use registry::Registry;
pub use target::EvenCows;
pub(crate) use target::{
    Blocking, MappedAt, RmapCx, RmapTarget, Unmap, UnmapRefused, VmaPlacement, Young,
};
pub(crate) use tree::Frozen;
pub(crate) use walk::{
    Usage, discard_large, referenced, restore, restore_large_page, split_large_of, unmap_frame,
    unmap_large_page, walk_frame,
};
