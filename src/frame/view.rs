//! Looking at a frame without holding a reference on it: the oracle for stale translations.
//!
//! A view remembers how often its frame had been retired when it was made. Each access checks, before and after, that
//! this has not changed: whoever uses a frame that was given back is caught in the act.

use super::{flags::FrameFlags, mem::PhysMem};
use crate::{
    addr::Pfn,
    sync::{AtomicU32, Ordering},
};

/// Read access to a frame, valid while the lock lives under which it was got.
#[derive(Clone, Copy, Debug)]
pub struct FrameView<'g> {
    mem: &'g PhysMem,
    pfn: Pfn,
    generation: u32,
    /// Where the times that it is retired are counted: looked up once for all checks.
    retired: &'g AtomicU32,
}

/// Read and write access to a frame.
#[derive(Debug)]
pub struct FrameViewMut<'g>(FrameView<'g>);

impl PhysMem {
    /// A view of the frame as it was in that generation.
    // Built in memory for a caller, its halves are written and read in other sizes, which costs more than all the rest.
    #[inline(always)]
    pub(crate) fn view(&self, pfn: Pfn, generation: u32) -> FrameView<'_> {
        FrameView {
            mem: self,
            pfn,
            generation,
            retired: self.generation_counter(pfn),
        }
    }
    /// The same with the right to write.
    #[inline(always)]
    pub(crate) fn view_mut(&self, pfn: Pfn, generation: u32) -> FrameViewMut<'_> {
        FrameViewMut(self.view(pfn, generation))
    }
}

impl FrameView<'_> {
    /// Number of the frame, for tracing.
    pub fn pfn(&self) -> Pfn {
        self.pfn
    }
    /// How often the frame had been retired when the view was made.
    pub fn generation(&self) -> u32 {
        self.generation
    }
    /// Whether the frame has been retired since the view was made.
    #[inline]
    pub fn is_stale(&self) -> bool {
        self.retired.load(Ordering::Acquire) != self.generation
    }
    #[inline]
    #[track_caller]
    fn check(&self) {
        assert!(!self.is_stale(), "stale reference to {:?}", self.pfn);
    }
    /// Copies `out.len()` bytes from `offset` on.
    ///
    /// # Panics
    ///
    /// If the bytes leave the page, or the frame was retired: a stale translation was used.
    #[inline(always)]
    #[track_caller]
    pub fn read(&self, offset: usize, out: &mut [u8]) {
        self.check();
        self.mem.read(self.pfn, offset, out);
        self.check();
    }
    /// One byte.
    ///
    /// # Panics
    ///
    /// As [`read`](Self::read).
    #[track_caller]
    pub fn read_u8(&self, offset: usize) -> u8 {
        let mut byte = [0];
        self.read(offset, &mut byte);
        byte[0]
    }
    /// Eight bytes, little-endian.
    ///
    /// # Panics
    ///
    /// As [`read`](Self::read).
    #[track_caller]
    pub fn read_u64(&self, offset: usize) -> u64 {
        let mut bytes = [0; 8];
        self.read(offset, &mut bytes);
        u64::from_le_bytes(bytes)
    }
}

impl<'g> FrameViewMut<'g> {
    /// The view for reading.
    pub fn as_view(&self) -> FrameView<'g> {
        self.0
    }
    /// Stores `bytes` from `offset` on and marks the frame dirty.
    ///
    /// # Panics
    ///
    /// As [`FrameView::read`].
    #[track_caller]
    pub fn write(&mut self, offset: usize, bytes: &[u8]) {
        self.0.check();
        self.0.mem.set_flags(self.0.pfn, FrameFlags::DIRTY);
        self.0.mem.write(self.0.pfn, offset, bytes);
        self.0.check();
    }
    /// [`write`](Self::write) as a device does it that has dirty bits of its own: the frame learns of it when the driver
    /// passes its bit on, which the gate does when the [entry](crate::notifier::ShadowEntry::set_dirty) goes. What is stored
    /// after that, through a TLB that was not flushed with the entry, is a lost write to an oracle (O6).
    ///
    /// # Panics
    ///
    /// As [`FrameView::read`].
    #[track_caller]
    pub fn write_deferring_dirty(&mut self, offset: usize, bytes: &[u8]) {
        self.0.check();
        self.0.mem.set_flags(self.0.pfn, FrameFlags::DEVICE_DIRTY);
        self.0.mem.write(self.0.pfn, offset, bytes);
        self.0.check();
    }
    /// Eight bytes, little-endian.
    ///
    /// # Panics
    ///
    /// As [`FrameView::read`].
    #[track_caller]
    pub fn write_u64(&mut self, offset: usize, value: u64) {
        self.write(offset, &value.to_le_bytes());
    }
}
