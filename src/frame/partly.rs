//! The queue of large pages of private memory of which a part may have been given back
//! (`deferred_split_queue`).
//!
//! A huge page is in it from the beginning, as one of which little may be used; any other large
//! page since a part of it was given back. A page that is looked at and is whole leaves the queue.

use super::{large_page::Large, queue::Queue};
use crate::sync::Mutex;
use std::collections::HashSet;

/// The queue of a machine. A page may be in it more than once, and counts where it comes first.
#[derive(Debug, Default)]
pub(super) struct Partly(Mutex<Queue<Large>>);

impl Partly {
    /// Appends a page. `is_left` tells whether anything is left of a page.
    pub(super) fn note(&self, page: Large, is_left: impl Fn(Large) -> bool) {
        self.0.lock().note(page, is_left);
    }
    /// Empties the queue: returns each page once of which anything is left.
    pub(super) fn take(&self, is_left: impl Fn(Large) -> bool) -> Vec<Large> {
        let mut pages = self.0.lock().take();
        let mut seen = HashSet::new();
        pages.retain(|&page| is_left(page) && seen.insert(page));
        pages
    }
}
