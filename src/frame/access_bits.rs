//! What entries that go say of the use of their frames.

use super::{flags::FrameFlags, mem::PhysMem};
use crate::{addr::Pfn, sync::Ordering};

/// The marks of an entry that goes, here or of an external MMU.
#[derive(Clone, Copy, Default)]
pub(crate) struct AccessBits {
    pub(crate) young: bool,
    pub(crate) dirty: bool,
}

impl PhysMem {
    /// An entry of a page table that went had these marks.
    #[inline(never)]
    pub(super) fn merge_access_bits(&self, pfn: Pfn, used: AccessBits) {
        if used.dirty {
            self.set_flags(pfn, FrameFlags::DIRTY);
        }
        if used.young {
            self.mark_accessed(pfn);
        }
    }
    /// An entry of an external MMU goes, and passes on its marks.
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
        while change(old) != old {
            let new = change(old);
            match flags.compare_exchange_weak(old, new, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => break,
                Err(now) => old = now,
            }
        }
    }
}
