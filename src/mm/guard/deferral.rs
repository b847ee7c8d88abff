//! Work of a fault that needs a window, and whether it waits until the fault has released the mmap
//! lock.
//!
//! A driver may sleep in a window. A fault therefore postpones this work, releases the lock, pins
//! the pages of [`WindowWork::range`] with an [`MmapPin`](super::MmapPin) and opens the window
//! then: an operation on other memory never waits for the driver. `fault/deferred.rs` does the
//! work.

use crate::addr::{Pfn, Vpn, VpnRange};
use crate::frame::PoolPage;
use crate::mm::{
    entry::pte::{RawPte, Rights},
    space::Mm,
};

use crate::rmap::Mapping;
use std::sync::Arc;

/// Work for a window. It owns the references on the frames that it names.
#[derive(Debug)]
pub(in crate::mm) enum WindowWork {
    /// Replace the entry `seen` at `at` by `pte`, which maps `copy` (`wp_page_copy`).
    Copy {
        /// The page that was written to.
        at: Vpn,
        /// The entry that was copied from: the work is void if another one is there by now.
        seen: RawPte,
        /// The new frame.
        copy: Pfn,
        /// The new entry.
        pte: RawPte,
        /// The frame that was copied; `None` for the zero page.
        original: Option<Pfn>,
        /// The VMA is locked: the copy replaces the original among the locked pages.
        locked: bool,
    },
    /// Split the mapping of the huge page at this page into small entries.
    Split(Vpn),
    /// Replace the huge zero page at `at` by the huge page that begins with `head`
    /// (`do_huge_zero_wp_pmd`).
    HugeZero { at: Vpn, head: Pfn, rights: Rights },
    /// Replace the huge page of a pool, whose first entry was `seen`, by its copy (`hugetlb_wp`).
    HugetlbCopy {
        page: VpnRange,
        seen: RawPte,
        new: PoolPage,
        rights: Rights,
    },
    /// Take the huge page that begins with `head` away from the processes that have no reservation
    /// for it; it is `pages` of the object (`unmap_ref_private`).
    Steal {
        page: VpnRange,
        mapping: Arc<Mapping>,
        pages: (u64, u64),
        head: Pfn,
    },
}

/// The right of a fault to postpone its work for a window, and the work once it did.
#[derive(Debug)]
pub(in crate::mm) enum Deferral {
    /// The work is done at once: the caller has more to do under the lock.
    Never,
    /// The work may be postponed; there is none yet.
    Nothing,
    /// This work was postponed.
    Work(WindowWork),
}

impl WindowWork {
    /// The pages that are pinned until the work is done, and that the window covers.
    pub(in crate::mm) fn range(&self) -> VpnRange {
        match *self {
            Self::Copy { at, .. } => VpnRange::single(at),
            Self::Split(at) | Self::HugeZero { at, .. } => VpnRange::block_of(at),
            Self::HugetlbCopy { page, .. } | Self::Steal { page, .. } => page,
        }
    }
}

impl Deferral {
    /// Lets a fault that can release the lock postpone its work if a driver is registered, which
    /// might sleep.
    pub(in crate::mm) fn of(mm: &Mm) -> Self {
        if mm.notifiers.is_made() {
            Self::Nothing
        } else {
            Self::Never
        }
    }
}
