//! A reference on a frame that a driver keeps by itself.

use crate::{
    addr::Pfn,
    frame::{FrameView, FrameViewMut, PhysMem},
};
use std::{fmt, sync::Arc};

/// One reference: the frame is not given back while this lives (`get_page`, `put_page`). It says nothing about what the
/// page table maps.
pub struct Pin {
    mem: Arc<PhysMem>,
    pfn: Pfn,
    generation: u32,
}

impl Pin {
    pub(super) fn new(mem: &Arc<PhysMem>, pfn: Pfn) -> Self {
        if !pfn.is_zero() {
            let _kept = mem.get(pfn).into_raw();
        }
        Self {
            mem: Arc::clone(mem),
            pfn,
            generation: mem.generation(pfn),
        }
    }
    /// Number of the frame.
    pub fn pfn(&self) -> Pfn {
        self.pfn
    }
    /// The frame.
    pub fn frame(&self) -> FrameView<'_> {
        self.mem.view(self.pfn, self.generation)
    }
    /// The frame to write to; it is marked dirty. `None` for the zero page.
    pub fn frame_mut(&mut self) -> Option<FrameViewMut<'_>> {
        (!self.pfn.is_zero()).then(|| self.mem.view_mut(self.pfn, self.generation))
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        if !self.pfn.is_zero() {
            drop(self.mem.adopt(self.pfn));
        }
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pin({:?})", self.pfn)
    }
}
