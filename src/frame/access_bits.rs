//! Accessed and dirty bits of page-table entries and device entries, merged into the flags of their
//! frames.
//!
//! An entry that is removed takes its bits along, so they move to the frame first: reclaim finds
//! the page used, and writeback finds it dirty.

use super::{flags::FrameFlags, mem::PhysMem};
use crate::{addr::Pfn, sync::Ordering};

/// The accessed and dirty bits of an entry that is removed, of a page table or of an external MMU.
#[derive(Clone, Copy, Default)]
pub(crate) struct AccessBits {
    /// The page was accessed through the entry (`pte_young`).
    pub(crate) young: bool,
    /// The page was written through the entry.
    pub(crate) dirty: bool,
}

impl PhysMem {
    /// Merges the bits of a removed page-table entry: a dirty entry makes the frame dirty, a young
    /// one counts as an access.
    #[inline(never)]
    pub(super) fn merge_access_bits(&self, pfn: Pfn, used: AccessBits) {
        if used.dirty {
            self.set_flags(pfn, FrameFlags::DIRTY);
        }
        if used.young {
            self.mark_accessed(pfn);
        }
    }
    /// Merges the bits of a removed entry of an external MMU.
    ///
    /// A dirty bit ends `DEVICE_DIRTY`: the device has told of its write. Both
    /// changes are one atomic update, so that no look at the flags finds the frame neither dirty
    /// nor owed a dirty bit.
    #[inline]
    pub(crate) fn merge_device_bits(&self, pfn: Pfn, used: AccessBits) {
        let mut marks = FrameFlags::empty();
        marks.set(FrameFlags::DIRTY, used.dirty);
        marks.set(FrameFlags::ACCESSED, used.young);
        let passed_on = if used.dirty {
            FrameFlags::DEVICE_DIRTY.bits()
        } else {
            0
        };
        let change = |old: u16| (old & !passed_on) | marks.bits();
        let flags = self.meta(pfn).flags;
        let mut old = flags.load(Ordering::Relaxed);
        loop {
            let new = change(old);
            if new == old {
                return;
            }
            match flags.compare_exchange_weak(old, new, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => old = now,
            }
        }
    }
}
