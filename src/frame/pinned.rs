//! The pinned frames of a machine, and how often each is pinned.
//!
//! The counts lie beside the metadata of the frames: few frames are pinned at a time. Linux adds
//! 1024 to the reference count for a pin of a small page and can only say that such a page *may* be
//! pinned (`GUP_PIN_COUNTING_BIAS`); here the answer is exact.

use crate::{
    addr::Pfn,
    sync::{AtomicUsize, Mutex, Ordering},
};
use std::{collections::BTreeMap, ops::Range};

/// The number of pins of each frame that has any.
#[derive(Debug, Default)]
pub(super) struct PinnedFrames {
    /// The number of frames that are pinned, to be read without the lock.
    frames: AtomicUsize,
    pins: Mutex<BTreeMap<u32, u32>>,
}

impl PinnedFrames {
    /// Returns true if any frame is pinned.
    #[inline]
    pub(super) fn any(&self) -> bool {
        self.frames.load(Ordering::SeqCst) != 0
    }
    /// Counts one more pin.
    pub(super) fn add(&self, pfn: Pfn) {
        let mut pins = self.pins.lock();
        *pins.entry(pfn.0).or_default() += 1;
        self.frames.store(pins.len(), Ordering::SeqCst);
    }
    /// Counts one pin less.
    ///
    /// # Panics
    ///
    /// If the frame is not pinned.
    pub(super) fn remove(&self, pfn: Pfn) {
        let mut pins = self.pins.lock();
        let count = pins.get_mut(&pfn.0).expect("a pinned frame is unpinned");
        *count -= 1;
        if *count == 0 {
            pins.remove(&pfn.0);
        }
        self.frames.store(pins.len(), Ordering::SeqCst);
    }
    /// Returns the number of pins of these frames together.
    pub(super) fn count(&self, pfns: Range<u32>) -> u64 {
        let pins = self.pins.lock();
        pins.range(pfns).map(|(_, &count)| u64::from(count)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::{Pfn, PinnedFrames};

    #[test]
    fn pins_are_counted_by_frame_and_over_a_range() {
        let pinned = PinnedFrames::default();
        for pfn in [7, 7, 9] {
            pinned.add(Pfn(pfn));
        }
        assert_eq!(
            [0..7, 7..8, 7..10].map(|part| pinned.count(part)),
            [0, 2, 3]
        );
        pinned.remove(Pfn(9));
        pinned.remove(Pfn(7));
        assert!(pinned.any());
        pinned.remove(Pfn(7));
        assert!(!pinned.any());
    }

    #[test]
    #[should_panic(expected = "a pinned frame is unpinned")]
    fn a_frame_is_not_unpinned_once_too_often() {
        PinnedFrames::default().remove(Pfn(7));
    }
}
