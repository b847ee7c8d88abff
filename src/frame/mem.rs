//! Metadata of all frames, and who gets the next one.

#[cfg(all(feature = "remote", target_os = "linux"))]
use super::shared::SharedMemory;
use super::{
    config::{Contents, MemConfig},
    contents::{Page, Pages},
    exported::Exported,
    flags::FrameFlags,
    free::FreeFrames,
    inject::Inject,
    lists::Lru,
    meta::{Meta, Metas},
    observer::FrameWatch,
    owner::Owner,
    pfn::ZERO,
    quota::Quota,
    swap_slots::Swap,
    waiters::Waiters,
};
use crate::{
    addr::Pfn,
    sync::{AtomicU32, OnceLock, Ordering},
};
use std::{fmt, mem::ManuallyDrop, sync::Arc};

/// Frames whose metadata are made together; fewer in the last chunk.
pub(super) const CHUNK: u32 = 1 << 14;
struct Chunk {
    meta: Metas,
    pages: Pages,
}

/// The physical memory of a machine.
pub struct PhysMem {
    pub(super) config: MemConfig,
    chunks: Box<[OnceLock<Chunk>]>,
    pub(super) free: FreeFrames,
    pub(super) inject: Inject,
    pub(super) waiters: Waiters,
    pub(super) swap: Swap,
    pub(super) lru: Lru,
    pub(super) exported: Exported,
    pub(super) watch: OnceLock<Arc<dyn FrameWatch>>,
    pub(super) quota: Quota,
}

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
            SharedMemory::new(1, false)?;
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

    /// Takes over a reference that a page-table entry or an object held.
    pub(crate) fn adopt(&self, pfn: Pfn) -> Frame<'_> {
        Frame::adopted(self, pfn)
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

/// One reference: the frame stays while this lives. Cloning takes another.
pub struct Frame<'m> {
    mem: &'m PhysMem,
    pfn: Pfn,
}

impl<'m> Frame<'m> {
    pub(super) fn adopted(mem: &'m PhysMem, pfn: Pfn) -> Self {
        Self { mem, pfn }
    }
    /// Its number.
    pub fn pfn(&self) -> Pfn {
        self.pfn
    }
    /// Whether it is a frame of this memory, and not of another machine's.
    pub(crate) fn is_of(&self, mem: &PhysMem) -> bool {
        std::ptr::eq(self.mem, mem)
    }
    /// Reads bytes.
    ///
    /// # Panics
    ///
    /// If they leave the page.
    pub fn read(&self, offset: usize, out: &mut [u8]) {
        self.mem.read(self.pfn, offset, out);
    }
    /// Writes bytes.
    ///
    /// # Panics
    ///
    /// If they leave the page.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        self.mem.write(self.pfn, offset, bytes);
    }
    /// Leaves the reference to whatever keeps the number: [`PhysMem::adopt`] takes it back.
    pub(crate) fn into_raw(self) -> Pfn {
        ManuallyDrop::new(self).pfn
    }
}

impl Clone for Frame<'_> {
    fn clone(&self) -> Self {
        self.mem.get(self.pfn)
    }
}

impl Drop for Frame<'_> {
    fn drop(&mut self) {
        self.mem.put(self.pfn);
    }
}

impl fmt::Debug for Frame<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({:?})", self.pfn)
    }
}
