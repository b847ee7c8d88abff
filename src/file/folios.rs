//! Folios: groups of 2, 4, … 512 pages of an object that came in together.
//!
//! The pages of a folio are mapped together where they fit. A folio is split when a part of it is
//! cut off, and forgotten when one page of it leaves alone.
//!
//! Nothing else depends on folios: each page has a frame of its own, with its own counts. Only the
//! 512 frames of a huge page lie in a row ([`collapse`](super::collapse)).

use std::{collections::BTreeMap, ops::Range};

/// The folios of an object: first page and order, the binary logarithm of the number of pages.
#[derive(Debug, Default)]
pub(super) struct Folios(BTreeMap<u64, u32>);

/// Returns the aligned block of that order around a page.
pub(super) fn aligned(index: u64, order: u32) -> Range<u64> {
    let first = index >> order << order;
    first..first + (1 << order)
}

impl Folios {
    /// Returns the first page and the order of the folio that page `index` is in.
    fn find(&self, index: u64) -> Option<(u64, u32)> {
        let (&first, &order) = self.0.range(..=index).next_back()?;
        aligned(first, order)
            .contains(&index)
            .then_some((first, order))
    }
    /// Returns the pages of the folio that page `index` is in; the page alone if it is in none.
    pub(super) fn around(&self, index: u64) -> Range<u64> {
        match self.find(index) {
            Some((first, order)) => aligned(first, order),
            None => index..index + 1,
        }
    }
    /// Makes the pages of the aligned block of that order around `index` one folio.
    pub(super) fn join(&mut self, index: u64, order: u32) {
        let pages = aligned(index, order);
        self.0.retain(|first, _| !pages.contains(first));
        if order > 0 {
            self.0.insert(pages.start, order);
        }
    }
    /// Dissolves the folio of page `index` into single pages.
    pub(super) fn forget(&mut self, index: u64) {
        if let Some((first, _)) = self.find(index) {
            self.0.remove(&first);
        }
    }
    /// Splits the folio of page `index` into this page alone and the largest possible folios of the
    /// others (`folio_split`, not `uniform`).
    pub(super) fn split_at(&mut self, index: u64) {
        let Some((first, order)) = self.find(index) else {
            return;
        };
        self.0.remove(&first);
        for half in (0..order).rev() {
            let mine = aligned(index, half);
            let other = mine.start ^ (1 << half);
            if half > 0 {
                self.0.insert(other, half);
            }
        }
    }
    /// Dissolves all folios.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::Folios;

    #[test]
    fn a_page_leaves_halves_behind() {
        let mut folios = Folios::default();
        folios.join(513, 9);
        assert_eq!(
            (folios.around(1023), folios.around(1024)),
            (512..1024, 1024..1025)
        );
        folios.split_at(516);
        let around = [512, 516, 517, 518, 520, 600, 1000].map(|page| folios.around(page));
        let halves = [
            512..516,
            516..517,
            517..518,
            518..520,
            520..528,
            576..640,
            768..1024,
        ];
        assert_eq!(around, halves);
        folios.split_at(519);
        assert_eq!(
            (folios.around(518), folios.around(519)),
            (518..519, 519..520)
        );
        folios.forget(700);
        assert_eq!(
            (folios.around(641), folios.around(800)),
            (641..642, 768..1024)
        );
        folios.join(512, 9);
        assert_eq!(folios.around(700), 512..1024);
        folios.clear();
        assert_eq!(folios.around(700), 700..701);
    }
}
