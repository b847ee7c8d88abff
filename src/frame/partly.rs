//! The queue of large pages of private memory of which a part may have been given back
//! (`deferred_split_queue`).
//!
//! A huge page is in it from the beginning, as one of which little may be used; any other large
//! page since a part of it was given back. A page that is looked at and is whole leaves the queue.

use super::large_page::Large;
use crate::sync::Mutex;
use std::collections::HashSet;

/// The queue of a machine. A page may be in it more than once, and counts where it comes first; one
/// that is gone stays until there are many.
#[derive(Debug, Default)]
pub(super) struct Partly(Mutex<Vec<Large>>);

impl Partly {
    /// Appends a page. `is_left` tells whether anything is left of a page.
    pub(super) fn note(&self, page: Large, is_left: impl Fn(Large) -> bool) {
        let mut pages = self.0.lock();
        if pages.last() == Some(&page) {
            return;
        }
        if pages.len() == pages.capacity() {
            pages.retain(|&page| is_left(page));
        }
        pages.push(page);
    }
    /// Empties the queue: returns each page once of which anything is left.
    pub(super) fn take(&self, is_left: impl Fn(Large) -> bool) -> Vec<Large> {
        let mut pages = std::mem::take(&mut *self.0.lock());
        let mut seen = HashSet::new();
        pages.retain(|&page| is_left(page) && seen.insert(page));
        pages
    }
}
