//! Pages on their way to another list of reclaim (`struct cpu_fbatches`).
//!
//! Linux does not move each page to its list at once: a processor collects some first, each with a
//! reference. So a page that `MADV_FREE` has marked seems to be in use by others until the batch is
//! full, or drained (`lru_add_drain`), and is copied by a store that could have had it in place.
//! New pages are collected too, but for those a store drains the batches itself.
//!
//! Here every page is on its list at once, and only its number is in a batch. All processors have
//! one set of batches together, which is in use from a call of `MADV_FREE` to the next drain.

use crate::{
    addr::Pfn,
    sync::{AtomicBool, Mutex, Ordering},
};
use std::fmt;

/// The number of pages in a batch that is full (`PAGEVEC_SIZE`).
const FULL: usize = 31;

/// A page: its number, and the generation in which that is meant.
pub(super) type Page = (Pfn, u32);

/// The batches of a machine.
#[derive(Default)]
pub(super) struct Batches {
    /// Set while there is a page in `lazily`.
    used: AtomicBool,
    batches: Mutex<Both>,
}

#[derive(Default)]
struct Both {
    /// Pages that `MADV_FREE` has marked (`lru_lazyfree`).
    lazily: Vec<Page>,
    /// New pages (`lru_add`).
    new: Vec<Page>,
}

/// The batch in which a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Batch {
    /// That of pages that `MADV_FREE` has marked.
    Lazily,
    /// That of new pages.
    New,
}

impl Batches {
    /// Returns true if there may be a page in a batch.
    #[inline]
    pub(super) fn are_used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }
    /// Collects a page; a batch that is full then is moved to its list.
    pub(super) fn collect(&self, page: Page, batch: Batch) {
        let mut batches = self.batches.lock();
        let pages = match batch {
            Batch::Lazily => &mut batches.lazily,
            Batch::New => &mut batches.new,
        };
        pages.push(page);
        if pages.len() == FULL {
            pages.clear();
        }
        self.used
            .store(!batches.lazily.is_empty(), Ordering::Relaxed);
    }
    /// Moves all pages to their lists.
    pub(super) fn drain(&self) {
        *self.batches.lock() = Both::default();
        self.used.store(false, Ordering::Relaxed);
    }
    /// Returns the batch in which the page is.
    #[cold]
    pub(super) fn find(&self, page: Page) -> Option<Batch> {
        let batches = self.batches.lock();
        let is_lazy = || batches.lazily.contains(&page).then_some(Batch::Lazily);
        let is_new = batches.new.contains(&page).then_some(Batch::New);
        is_new.or_else(is_lazy)
    }
}

impl fmt::Debug for Batches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batches").finish_non_exhaustive()
    }
}
