//! An entry of a guest file's page: no page of an address space is behind it.

use super::{attributes::PageKind, gfn::Gfn};
use crate::{
    addr::Pfn,
    frame::{AccessBits, FrameView, FrameViewMut, PhysMem},
};

/// A guest frame, and the frame of a guest file that it shows. It has no reference: the file has
/// one, and gives it up only inside of a window over the guest frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GuestEntry {
    pub(super) gfn: Gfn,
    pub(super) pfn: Pfn,
    /// The generation of the frame.
    pub(super) generation: u32,
    /// The kind that the guest frame had.
    pub(super) kind: PageKind,
}

impl GuestEntry {
    /// Returns the frame, for an access under the lock that the entry was found under.
    pub(super) fn view<'m>(&self, mem: &'m PhysMem) -> FrameView<'m> {
        mem.view(self.pfn, self.generation)
    }
    /// Tells the frame that the guest may have written to it. The frames of a guest file have no
    /// store to be written to, so an entry has no dirty bit.
    pub(super) fn pass_on_dirty(&self, mem: &PhysMem) {
        let (young, dirty) = (false, true);
        if mem.generation(self.pfn) == self.generation {
            mem.merge_device_bits(self.pfn, AccessBits { young, dirty });
        }
    }
    pub(super) fn view_mut<'m>(&self, mem: &'m PhysMem) -> FrameViewMut<'m> {
        mem.view_mut(self.pfn, self.generation)
    }
}
