//! Which large pages are folios of 64 KiB: a bit for each.

use super::pfn::FOLIO;
use crate::{
    addr::Pfn,
    sync::{AtomicU64, OnceLock, Ordering},
};

/// The number of frames with a bit in one word.
const WORD: u32 = FOLIO * u64::BITS;

/// A bit for each 16 frames in a row: set if they were a folio of 64 KiB when they were last
/// allocated as one. Made with the first folio.
#[derive(Debug, Default)]
pub(super) struct FolioBits(OnceLock<Box<[AtomicU64]>>);

impl FolioBits {
    fn bit(pfn: Pfn) -> (usize, u64) {
        let bit = pfn.0 / FOLIO % u64::BITS;
        ((pfn.0 / WORD) as usize, 1 << bit)
    }
    /// Returns true if the frame was last allocated as part of a folio, if as part of a large page.
    pub(super) fn has(&self, pfn: Pfn) -> bool {
        let (word, bit) = Self::bit(pfn);
        let words = self.0.get();
        let found = words.and_then(|words| words.get(word));
        found.is_some_and(|word| word.load(Ordering::Relaxed) & bit != 0)
    }
    /// Notes that the frames of a folio were allocated as one.
    pub(super) fn set(&self, head: Pfn, capacity: u32) {
        let words = self.0.get_or_init(|| {
            let words = capacity / WORD + 1;
            (0..words).map(|_| AtomicU64::new(0)).collect()
        });
        let (word, bit) = Self::bit(head);
        words[word].fetch_or(bit, Ordering::Relaxed);
    }
    /// Notes that as many frames in a row were allocated as one huge page.
    pub(super) fn clear(&self, head: Pfn, frames: u32) {
        let Some(words) = self.0.get() else {
            return;
        };
        for nth in (0..frames).step_by(FOLIO as usize) {
            let (word, bit) = Self::bit(head.nth(nth));
            words[word].fetch_and(!bit, Ordering::Relaxed);
        }
    }
}
