//! Views of a frame without a reference: the oracle that catches stale translations.
//!
//! A view remembers the generation of its frame. Each access checks, before and after, that the
//! generation has not changed: a driver that uses a frame after it was given back is caught by a
//! panic.

use super::{
    flags::FrameFlags,
    mem::PhysMem,
    word::{AtomicOp, Word, WordAccess},
};
use crate::{
    addr::Pfn,
    sync::{AtomicU32, Ordering},
};
use std::ptr::NonNull;

/// Read access to a frame, valid while the lock lives under which the view was made.
#[derive(Clone, Copy, Debug)]
pub struct FrameView<'g> {
    mem: &'g PhysMem,
    pfn: Pfn,
    generation: u32,
    /// The counter of the frame's retirements, looked up once for all checks.
    retired: &'g AtomicU32,
}

/// Read and write access to a frame.
#[derive(Debug)]
pub struct FrameViewMut<'g>(FrameView<'g>);

impl PhysMem {
    /// Returns a view of the frame as it was in that generation.
    // Always inlined: built in memory for a caller, its halves are written and read in different
    // sizes, which costs more than the rest of an access.
    #[inline(always)]
    pub(crate) fn view(&self, pfn: Pfn, generation: u32) -> FrameView<'_> {
        FrameView {
            mem: self,
            pfn,
            generation,
            retired: self.generation_counter(pfn),
        }
    }
    /// Returns a writable view of the frame as it was in that generation.
    #[inline(always)]
    pub(crate) fn view_mut(&self, pfn: Pfn, generation: u32) -> FrameViewMut<'_> {
        FrameViewMut(self.view(pfn, generation))
    }
}

impl FrameView<'_> {
    /// Returns the number of the frame, for tracing.
    pub fn pfn(&self) -> Pfn {
        self.pfn
    }
    /// Returns the generation of the frame when the view was made: how often it had been retired.
    pub fn generation(&self) -> u32 {
        self.generation
    }
    /// Returns true if the frame has been retired since the view was made.
    #[inline]
    pub fn is_stale(&self) -> bool {
        self.retired.load(Ordering::Acquire) != self.generation
    }
    /// Panics if the view is stale.
    #[inline]
    #[track_caller]
    fn check(&self) {
        assert!(
            !self.is_stale(),
            "stale reference to {:?}: the frame was given back after its look-up",
            self.pfn
        );
    }
    /// Copies `out.len()` bytes from `offset` on.
    ///
    /// # Panics
    ///
    /// If the bytes leave the page, or if the frame was retired: a stale translation was used.
    #[inline(always)]
    #[track_caller]
    pub fn read(&self, offset: usize, out: &mut [u8]) {
        self.check();
        self.mem.read(self.pfn, offset, out);
        self.check();
    }
    /// Loads an aligned word whole, with the given ordering at least.
    ///
    /// # Panics
    ///
    /// If [`read`](Self::read) does, or the word is not aligned.
    #[track_caller]
    pub fn load<T: Word>(&self, offset: usize, order: Ordering) -> T {
        self.check();
        let load = WordAccess::new(AtomicOp::<T>::Load, order);
        let word = T::from_low(self.mem.access_word(self.pfn, offset, &load));
        self.check();
        word
    }
    /// Returns the address of the frame's 4096 bytes in this process, a multiple of 4096; `None`
    /// without [contents](super::Contents), and while the bytes are lent to a partition.
    ///
    /// The bytes are the frame's until the lock is released under which this view was made, or as
    /// long as the caller holds the frame by other means (a pin, a reference). They change at any
    /// time: they are to be read by volatile or atomic loads, and not to be written. From now on
    /// the frame counts as written, and partitions cannot borrow it.
    ///
    /// # Panics
    ///
    /// If the frame was retired: a stale translation was used.
    #[track_caller]
    pub fn as_ptr(&self) -> Option<NonNull<u8>> {
        self.check();
        self.mem.address(self.pfn)
    }
    /// Reads one byte.
    ///
    /// # Panics
    ///
    /// If [`read`](Self::read) does.
    #[track_caller]
    pub fn read_u8(&self, offset: usize) -> u8 {
        let mut byte = [0];
        self.read(offset, &mut byte);
        byte[0]
    }
    /// Reads eight bytes, little-endian.
    ///
    /// # Panics
    ///
    /// If [`read`](Self::read) does.
    #[track_caller]
    pub fn read_u64(&self, offset: usize) -> u64 {
        let mut bytes = [0; 8];
        self.read(offset, &mut bytes);
        u64::from_le_bytes(bytes)
    }
}

impl<'g> FrameViewMut<'g> {
    /// Returns the view for reading.
    pub fn as_view(&self) -> FrameView<'g> {
        self.0
    }
    /// Stores `bytes` from `offset` on and marks the frame dirty.
    ///
    /// # Panics
    ///
    /// If [`FrameView::read`] does.
    #[track_caller]
    pub fn write(&mut self, offset: usize, bytes: &[u8]) {
        self.0.check();
        self.0.mem.set_flags(self.0.pfn, FrameFlags::DIRTY);
        self.0.mem.write(self.0.pfn, offset, bytes);
        self.0.check();
    }
    /// Stores `bytes` from `offset` on as a device does that has dirty bits of its own: the frame
    /// becomes dirty when the driver passes the bit on.
    ///
    /// The gate passes it on when the [entry](crate::notifier::ShadowEntry::set_dirty) is removed.
    /// A store after that, through a TLB that was not flushed with the entry, is a lost write to an
    /// oracle (O6). A device with a TLB and no entry uses [`write`](Self::write).
    ///
    /// # Panics
    ///
    /// If [`FrameView::read`] does.
    #[track_caller]
    pub fn write_deferring_dirty(&mut self, offset: usize, bytes: &[u8]) {
        self.0.check();
        self.0.mem.set_flags(self.0.pfn, FrameFlags::DEVICE_DIRTY);
        self.0.mem.write(self.0.pfn, offset, bytes);
        self.0.check();
    }
    /// Does an atomic access of an aligned word with the given ordering at least, and returns the
    /// value before it. Marks the frame dirty unless the access only loads.
    ///
    /// # Panics
    ///
    /// If [`FrameView::load`] does.
    #[track_caller]
    pub fn atomic<T: Word>(&mut self, offset: usize, op: AtomicOp<T>, order: Ordering) -> T {
        self.access_word(offset, &WordAccess::new(op, order), FrameFlags::DIRTY)
    }
    /// Does an atomic access as a device does that has dirty bits of its own; see
    /// [`write_deferring_dirty`](Self::write_deferring_dirty).
    ///
    /// # Panics
    ///
    /// If [`FrameView::load`] does.
    #[track_caller]
    pub fn atomic_deferring_dirty<T: Word>(
        &mut self,
        offset: usize,
        op: AtomicOp<T>,
        order: Ordering,
    ) -> T {
        let access = WordAccess::new(op, order);
        self.access_word(offset, &access, FrameFlags::DEVICE_DIRTY)
    }
    #[track_caller]
    fn access_word<T: Word>(&mut self, offset: usize, access: &WordAccess, dirty: FrameFlags) -> T {
        self.0.check();
        if !access.is_load() {
            self.0.mem.set_flags(self.0.pfn, dirty);
        }
        let old = self.0.mem.access_word(self.0.pfn, offset, access);
        self.0.check();
        T::from_low(old)
    }
    /// Returns the address of the frame's bytes as [`FrameView::as_ptr`] does, for volatile or
    /// atomic accesses of either kind, and marks the frame dirty.
    ///
    /// A frame that is written back becomes clean. A caller that stores after that, because it
    /// keeps the frame by a pin, marks the frame dirty again.
    ///
    /// # Panics
    ///
    /// If [`FrameView::as_ptr`] does.
    #[track_caller]
    pub fn as_mut_ptr(&mut self) -> Option<NonNull<u8>> {
        self.0.check();
        self.0.mem.set_flags(self.0.pfn, FrameFlags::DIRTY);
        self.0.mem.address(self.0.pfn)
    }
    /// Stores eight bytes, little-endian, as [`write`](Self::write) does.
    ///
    /// # Panics
    ///
    /// If [`FrameView::read`] does.
    #[track_caller]
    pub fn write_u64(&mut self, offset: usize, value: u64) {
        self.write(offset, &value.to_le_bytes());
    }
}
