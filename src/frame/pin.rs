//! Pinning frames: a pin is a reference whose holder reads or writes the bytes by the number of the
//! frame, for any time (`FOLL_PIN`).
//!
//! Guarantee: a private page that is pinned stays the page of its process. As long as the process
//! maps it, `fork` copies it for the child at once, and reclaim, migration and same-page merging
//! leave it (docs/adr/0031-a-pinned-page-stays-with-its-process.md).

use super::{
    flags::FrameFlags,
    mem::{Frame, PhysMem},
};
use crate::addr::Pfn;
use std::mem::ManuallyDrop;

/// A hold on a frame: a reference, or a pin, which is given back on drop.
#[derive(Debug)]
pub(crate) struct HeldFrame<'m> {
    mem: &'m PhysMem,
    frame: Frame<'m>,
    pinned: bool,
}

impl PhysMem {
    /// Returns true if any frame of the machine is pinned.
    ///
    /// To be called under the lock of an entry that maps the frame in question: a page is pinned
    /// under that lock.
    #[inline]
    pub(crate) fn has_pinned(&self) -> bool {
        self.pinned.any()
    }
    /// Returns the number of pins of a frame; 0 for a zero page, which is never pinned.
    pub fn pins(&self, pfn: Pfn) -> u64 {
        self.pinned.count(pfn.0..pfn.0 + 1)
    }
    /// Returns true if the frame is pinned, or any part of its large page
    /// (`folio_maybe_dma_pinned`).
    #[inline]
    pub(crate) fn is_pinned(&self, pfn: Pfn) -> bool {
        self.has_pinned() && self.look_for_pins(pfn)
    }
    /// Returns true if reclaim leaves the page where it is, without a window, because it is pinned:
    /// private memory gets no slot of swap (`shrink_folio_list`), a huge page stays whole
    /// (`can_split_folio`). One that `MADV_FREE` has marked is neither written nor split: its
    /// mappings are looked at.
    pub(crate) fn is_kept_by_pin(&self, pfn: Pfn) -> bool {
        let anon = FrameFlags::ANON | FrameFlags::SWAP_BACKED;
        let flags = self.flags(pfn);
        let slotless = flags & (anon | FrameFlags::SWAP_CACHE) == anon;
        let marked = flags & anon == FrameFlags::ANON;
        let whole = flags.contains(FrameFlags::LARGE) && !marked;
        (slotless || whole) && self.is_pinned(pfn)
    }
    #[cold]
    #[inline(never)]
    fn look_for_pins(&self, pfn: Pfn) -> bool {
        let pins = match self.large(pfn) {
            Some(page) => {
                let first = page.head().0;
                self.pinned.count(first..first + page.frames())
            }
            None => self.pins(pfn),
        };
        pins != 0
    }
}

impl PhysMem {
    /// Takes a hold on a frame under the lock of an entry that maps it.
    pub(crate) fn hold(&self, pfn: Pfn, pinned: bool) -> HeldFrame<'_> {
        let frame = self.get(pfn);
        if pinned {
            self.pinned.add(pfn);
        }
        HeldFrame {
            mem: self,
            frame,
            pinned,
        }
    }
    /// Takes over a hold that [`HeldFrame::into_raw`] left.
    pub(crate) fn adopt_held(&self, pfn: Pfn, pinned: bool) -> HeldFrame<'_> {
        HeldFrame {
            mem: self,
            frame: self.adopt(pfn),
            pinned,
        }
    }
}

impl HeldFrame<'_> {
    /// Leaves the hold to a value that knows the number of the frame, and whether it is pinned.
    pub(crate) fn into_raw(self) -> Pfn {
        ManuallyDrop::new(self).frame.pfn()
    }
}

impl Drop for HeldFrame<'_> {
    fn drop(&mut self) {
        if self.pinned {
            self.mem.pinned.remove(self.frame.pfn());
        }
    }
}
