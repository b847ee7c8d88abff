//! Metadata of all frames, and who gets the next one.

use super::{
    contents::{Contents, MemConfig, Page, Pages},
    exported::{Exported, Lost},
    flags::FrameFlags,
    free::FreeFrames,
    handle::Frame,
    inject::{AllocKind, Inject, Injected},
    lru::Lru,
    meta::{Meta, Metas},
    owner::Owner,
    quota::Quota,
    swap::Swap,
    used::AccessBits,
    wait::Waiters,
    watch::FrameWatch,
};
use crate::{
    addr::Pfn,
    sync::{AtomicU32, OnceLock, Ordering},
};
use std::{fmt, sync::Arc};
use thiserror::Error;

/// Every frame is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum OutOfFrames {
    /// Really.
    #[error("all {0} frames are in use")]
    UsedUp(u32),
    /// On purpose.
    #[error(transparent)]
    Injected(#[from] Injected),
}

/// Frames whose metadata are made together; fewer in the last chunk.
pub(super) const CHUNK: u32 = 1 << 14;
struct Chunk {
    meta: Metas,
    pages: Pages,
}

/// The physical memory of a machine.
pub struct PhysMem {
    config: MemConfig,
    chunks: Box<[OnceLock<Chunk>]>,
    pub(super) free: FreeFrames,
    inject: Inject,
    pub(super) waiters: Waiters,
    pub(super) swap: Swap,
    pub(super) lru: Lru,
    pub(super) exported: Exported,
    pub(super) watch: OnceLock<Arc<dyn FrameWatch>>,
    pub(super) quota: Quota,
}

/// The zero page: frame 0, never counted, never freed.
pub(super) const ZERO: Pfn = Pfn(0);

impl PhysMem {
    /// Memory of that size; nothing is allocated for it yet but a directory.
    ///
    /// # Panics
    ///
    /// Where [`try_new`](Self::try_new) fails.
    pub fn new(config: MemConfig) -> Self {
        Self::try_new(config).unwrap_or_else(|e| panic!("no such memory: {e}"))
    }
    /// As [`new`](Self::new), with an error for what cannot be had.
    ///
    /// # Errors
    ///
    /// `InvalidInput`: more than 2^28 frames. Of memory that can be lent to other processes, what the host said: it may
    /// not seal memory.
    pub fn try_new(config: MemConfig) -> std::io::Result<Self> {
        if config.frames > 1 << 28 {
            let why = format!("{} frames are more than 2^28", config.frames);
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, why));
        }
        // Tried out once, before anybody counts on it.
        #[cfg(all(feature = "remote", target_os = "linux"))]
        if config.contents == Contents::Shared {
            super::SharedMemory::new(1, false)?;
        }
        let chunks = (config.frames + 1).div_ceil(CHUNK);
        Ok(Self {
            config,
            chunks: (0..chunks).map(|_| OnceLock::new()).collect(),
            free: FreeFrames::new(config.frames),
            inject: Inject::default(),
            waiters: Waiters::default(),
            swap: Swap::new(config.swap),
            lru: Lru::default(),
            exported: Exported::default(),
            watch: OnceLock::new(),
            quota: Quota::default(),
        })
    }
    /// Frames there are.
    pub fn capacity(&self) -> u32 {
        self.config.frames
    }
    pub(super) fn contents(&self) -> Contents {
        self.config.contents
    }
    /// Frames in use now.
    pub fn in_use(&self) -> u32 {
        self.free.in_use()
    }
    /// Where to make allocations fail.
    pub fn inject(&self) -> &Inject {
        &self.inject
    }
    /// The frame that reads as zero wherever nothing was written.
    pub fn zero_pfn(&self) -> Pfn {
        ZERO
    }

    #[inline(always)]
    fn chunk(&self, pfn: Pfn) -> &Chunk {
        let chunk = &self.chunks[(pfn.0 / CHUNK) as usize];
        match chunk.get() {
            Some(chunk) => chunk,
            None => chunk.get_or_init(|| self.new_chunk(pfn)),
        }
    }
    #[cold]
    #[inline(never)]
    fn new_chunk(&self, pfn: Pfn) -> Chunk {
        let first = pfn.0 - pfn.0 % CHUNK;
        let len = CHUNK.min(self.config.frames + 1 - first);
        Chunk {
            meta: Metas::new(len),
            pages: Pages::new(self.config.contents, len),
        }
    }
    #[inline(always)]
    pub(super) fn meta(&self, pfn: Pfn) -> Meta<'_> {
        debug_assert!(pfn != ZERO, "the zero page has no counts");
        self.chunk(pfn).meta.of((pfn.0 % CHUNK) as usize)
    }
    /// What is in a frame; `None` without contents.
    #[inline]
    pub(super) fn page(&self, pfn: Pfn) -> Option<Page<'_>> {
        if self.config.contents == Contents::None {
            return None;
        }
        self.chunk(pfn).pages.page((pfn.0 % CHUNK) as usize)
    }

    /// A frame that reads as zero, with one reference.
    ///
    /// For one thread the order is fixed: the frame retired last comes first, then those never used, ascending.
    ///
    /// # Errors
    ///
    /// [`OutOfFrames`] when all are in use.
    pub fn alloc(&self) -> Result<Frame<'_>, OutOfFrames> {
        self.alloc_as(FrameFlags::empty(), None)
    }
    /// The same, born with flags and an owner.
    pub(crate) fn alloc_as(
        &self,
        flags: FrameFlags,
        owner: Option<Owner>,
    ) -> Result<Frame<'_>, OutOfFrames> {
        self.inject.check(AllocKind::Frame)?;
        let pfn = self.free.take();
        let Some(pfn) = pfn else {
            self.note_no_frame();
            return Err(OutOfFrames::UsedUp(self.config.frames));
        };
        self.init_allocated(pfn, flags, owner);
        Ok(self.adopt(pfn))
    }
    /// A frame off the free list gets one reference. The rest comes first: whoever gets another one by the number finds it.
    pub(super) fn init_allocated(&self, pfn: Pfn, flags: FrameFlags, owner: Option<Owner>) {
        let meta = self.meta(pfn);
        meta.flags.store(flags.bits(), Ordering::Relaxed);
        meta.owner
            .store(owner.map_or(0, Owner::word), Ordering::Relaxed);
        meta.counts.init_allocated(pfn);
    }
    /// The same with one mapping, which has the reference.
    #[inline]
    pub(super) fn init_mapped(&self, pfn: Pfn, flags: FrameFlags, owner: Owner) {
        let meta = self.meta(pfn);
        meta.flags.store(flags.bits(), Ordering::Relaxed);
        meta.owner.store(owner.word(), Ordering::Relaxed);
        meta.counts.init_mapped(pfn);
    }
    fn retire(&self, pfn: Pfn) {
        self.leave(pfn, self.meta(pfn));
        self.free.put(pfn);
    }
    /// The last reference is gone: all that retiring a frame is but the free list.
    #[inline]
    fn leave(&self, pfn: Pfn, meta: Meta<'_>) {
        self.watch_retirement(pfn);
        if (meta.flags()).intersects(FrameFlags::LRU | FrameFlags::EXPORTED) {
            self.lru_remove(pfn);
            self.unexport(pfn);
        }
        // The generation first: from here on every view of the frame is stale. Who gave up the last reference is alone.
        let next = meta.generation.load(Ordering::Relaxed).wrapping_add(1);
        meta.generation.store(next, Ordering::Release);
        if self.config.contents != Contents::None {
            self.clear_page(pfn);
        }
    }
    #[inline(never)]
    fn clear_page(&self, pfn: Pfn) {
        if let Some(page) = self.page(pfn) {
            page.clear();
        }
    }

    /// Takes over a reference that a page-table entry or an object held.
    pub(crate) fn adopt(&self, pfn: Pfn) -> Frame<'_> {
        Frame::adopted(self, pfn)
    }
    /// One more reference on a frame that somebody holds.
    pub(crate) fn get(&self, pfn: Pfn) -> Frame<'_> {
        self.meta(pfn).counts.get_ref(pfn);
        self.adopt(pfn)
    }
    /// One more reference unless the frame is free.
    pub(crate) fn try_get(&self, pfn: Pfn) -> Option<Frame<'_>> {
        self.meta(pfn).counts.try_get_ref().then(|| self.adopt(pfn))
    }
    pub(super) fn put(&self, pfn: Pfn) {
        if self.meta(pfn).counts.put_ref(pfn) {
            self.retire(pfn);
        }
    }
    /// An entry maps the frame with the reference that its maker gave up.
    pub(crate) fn map_inc(&self, pfn: Pfn) {
        self.meta(pfn).counts.map(pfn);
    }
    /// One more entry maps the frame.
    pub(crate) fn share(&self, pfn: Pfn) {
        self.meta(pfn).counts.share(pfn, 1);
    }
    /// As many more of a private frame, which one entry alone may have had until now.
    #[inline]
    pub(crate) fn share_private(&self, pfn: Pfn, more: u32) {
        let meta = self.meta(pfn);
        if more > 0 {
            meta.counts.share(pfn, more);
        }
        let exclusive = FrameFlags::ANON_EXCLUSIVE.bits();
        if meta.flags.load(Ordering::Relaxed) & exclusive != 0 {
            meta.flags.fetch_and(!exclusive, Ordering::Relaxed);
        }
    }
    /// An entry stops mapping the frame, and says how it was used; whether that was the last reference. Then it is retired
    /// but for the free list. One that is exported stays until that was told.
    #[inline]
    pub(super) fn unmap_last(&self, pfn: Pfn, used: AccessBits) -> bool {
        let flags = self.meta(pfn).flags();
        // Of private memory nobody will ever ask.
        let asked = FrameFlags::ANON | FrameFlags::EXPORTED;
        if flags & asked != FrameFlags::ANON {
            if !flags.contains(FrameFlags::ANON) {
                self.keep_use(pfn, used);
            }
            if flags.contains(FrameFlags::EXPORTED) {
                self.put_off(pfn, Lost::Mapping);
            }
        }
        self.unmap_told(pfn)
    }
    /// The same where its use was noted, and whoever has the frame locked tells of it.
    #[inline]
    pub(super) fn unmap_told(&self, pfn: Pfn) -> bool {
        let meta = self.meta(pfn);
        let last = meta.counts.unshare(pfn);
        if last {
            self.leave(pfn, meta);
        }
        last
    }
    /// References on a frame, mappings among them; none on a zero page, which is not counted.
    ///
    /// # Panics
    ///
    /// If the memory has no frame of that number: it is of another machine. So do the others that say something of a frame.
    pub fn refcount(&self, pfn: Pfn) -> u32 {
        self.counts(pfn).0
    }
    /// Entries that map a frame; none of a zero page, which is not counted.
    pub fn mapcount(&self, pfn: Pfn) -> u32 {
        self.counts(pfn).1
    }
    #[inline]
    fn counts(&self, pfn: Pfn) -> (u32, u32) {
        if pfn.is_zero() {
            return (0, 0);
        }
        self.meta(pfn).counts.get()
    }
    /// Times that a frame was retired. Wraps after 2^32.
    #[inline]
    pub fn generation(&self, pfn: Pfn) -> u32 {
        self.generation_counter(pfn).load(Ordering::Acquire)
    }
    /// Where that is counted. All zero pages have the place of the one that is never retired.
    #[inline]
    pub(super) fn generation_counter(&self, pfn: Pfn) -> &AtomicU32 {
        let pfn = if pfn.is_zero() { ZERO } else { pfn };
        self.chunk(pfn).meta.of((pfn.0 % CHUNK) as usize).generation
    }
    /// Who has the frame; meaningful while a reference is held.
    pub(crate) fn owner(&self, pfn: Pfn) -> Option<Owner> {
        Owner::from_word(self.meta(pfn).owner.load(Ordering::Acquire))
    }
    pub(crate) fn set_owner(&self, pfn: Pfn, owner: Option<Owner>) {
        let word = owner.map_or(0, Owner::word);
        self.meta(pfn).owner.store(word, Ordering::Release);
    }
    pub(super) fn fetch_set(&self, pfn: Pfn, flags: FrameFlags) -> FrameFlags {
        let old = self
            .meta(pfn)
            .flags
            .fetch_or(flags.bits(), Ordering::AcqRel);
        FrameFlags::from_bits_retain(old)
    }
    pub(super) fn fetch_clear(&self, pfn: Pfn, flags: FrameFlags) -> FrameFlags {
        let old = self
            .meta(pfn)
            .flags
            .fetch_and(!flags.bits(), Ordering::AcqRel);
        FrameFlags::from_bits_retain(old)
    }
    /// What is known of a frame; nothing of a zero page.
    #[inline]
    pub fn flags(&self, pfn: Pfn) -> FrameFlags {
        if pfn.is_zero() {
            return FrameFlags::empty();
        }
        self.meta(pfn).flags()
    }
    /// Whether the frame is in the swap cache. Who takes its last mapping out asks after that, and reclaim counts the
    /// mappings after it put the frame in: of two at the same time one sees the other, and frees the slot that nobody
    /// refers to.
    pub(super) fn in_swap_cache(&self, pfn: Pfn) -> bool {
        let flags = self.meta(pfn).flags.load(Ordering::SeqCst);
        FrameFlags::from_bits_retain(flags).contains(FrameFlags::SWAP_CACHE)
    }
    pub(crate) fn set_flags(&self, pfn: Pfn, flags: FrameFlags) {
        if !self.flags(pfn).contains(flags) {
            self.meta(pfn)
                .flags
                .fetch_or(flags.bits(), Ordering::SeqCst);
        }
    }
    pub(crate) fn clear_flags(&self, pfn: Pfn, flags: FrameFlags) {
        if self.flags(pfn).intersects(flags) {
            self.meta(pfn)
                .flags
                .fetch_and(!flags.bits(), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
impl PhysMem {
    /// An entry stops mapping the frame; the last reference retires it.
    pub(super) fn unshare(&self, pfn: Pfn) {
        self.retired().unmap(pfn, AccessBits::default());
    }
    /// Bytes of metadata made so far: the directory, the chunks, the list of free frames; not what frames hold.
    pub(super) fn overhead(&self) -> usize {
        let made = self.chunks.iter().filter_map(OnceLock::get);
        let chunks: usize = made.map(|c| c.meta.overhead() + c.pages.overhead()).sum();
        size_of_val(&*self.chunks) + chunks + self.free.overhead()
    }
    /// Whether a frame has a page of contents.
    pub(super) fn holds_page(&self, pfn: Pfn) -> bool {
        self.page(pfn).is_some_and(|p| p.is_made())
    }
}

impl fmt::Debug for PhysMem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PhysMem")
            .field("frames", &self.config.frames)
            .field("contents", &self.config.contents)
            .field("in_use", &self.in_use())
            .finish_non_exhaustive()
    }
}
