//! Requests of reverse maps: find the entries that map a frame, unmap them, move or merge the page.
//!
//! A reverse map ([`crate::rmap`]) leads from a frame to the address spaces that may map it. It
//! calls them under its own lock, without the mmap lock, so VMAs may change meanwhile: each
//! request opens its window first and checks the entry in it. Entries do not escape a walk, since
//! the reverse maps know the new place of a VMA before they forget the old one (ADR 0005).
//!
//! | file | holds |
//! | --- | --- |
//! | `target` | the answers of an address space ([`RmapTarget`](crate::rmap::RmapTarget)) |
//! | `try_to_unmap` | unmapping a frame from one place, for reclaim and migration |
//! | `migrate` | moving a page to another frame |
//! | `migrate_huge` | … a huge page, as a whole or split |
//! | `reclaim_large` | the use of a large page, and how it is discarded as a whole |
//! | `merge_same_pages` | merging one page with another of equal bytes |
//! | `ksmd` | the passes of merging over many pages |
//! | `check_rmap` | the check that reverse maps lead to every mapping |

pub(in crate::mm) mod check_rmap;
pub(in crate::mm) mod ksmd;
pub(in crate::mm) mod merge_same_pages;
pub(in crate::mm) mod migrate;
mod migrate_huge;
mod reclaim_large;
pub(in crate::mm) mod target;
pub(in crate::mm) mod try_to_unmap;
