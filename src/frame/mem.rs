//! The physical memory of a machine, and a reference on one of its frames.
//!
//! Metadata and contents are made by the chunk, when the first frame of a chunk is used: a machine
//! of a terabyte costs a directory until then.

#[cfg(all(feature = "host-mapping", target_os = "linux"))]
use super::arena::Arena;
#[cfg(all(feature = "remote", target_os = "linux"))]
use super::shared::SharedMemory;
use super::{
    batches::Batches,
    config::{Contents, MemConfig},
    contents::{Page, Pages},
    device_frames::DeviceFrames,
    exported::Exported,
    flags::FrameFlags,
    folio_orders::FolioOrders,
    free::FreeFrames,
    huge_pool::HugePools,
    inject::Inject,
    lists::Lru,
    meta::{Meta, Metas},
    observer::FrameWatch,
    owner::Owner,
    partly::Partly,
    pfn::ZERO,
    pinned::PinnedFrames,
    quota::Quota,
    swap_slots::Swap,
    waiters::Waiters,
};
use crate::{
    addr::Pfn,
    sync::{AtomicBool, AtomicU32, OnceLock, Ordering},
};
use std::{fmt, mem::ManuallyDrop, sync::Arc};

/// The number of frames whose metadata are made together; fewer in the last chunk. Few, since a
/// machine that lives shortly uses few, and not too few: the directory has 48 bytes for each chunk.
pub(super) const CHUNK: u32 = 1 << 12;

/// Metadata and contents of consecutive frames.
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
    pub(super) batches: Batches,
    pub(super) exported: Exported,
    pub(super) pinned: PinnedFrames,
    pub(super) watch: OnceLock<Arc<dyn FrameWatch>>,
    pub(super) quota: Quota,
    pub(super) pools: HugePools,
    /// Set since a large page was allocated for the first time.
    pub(super) has_large: AtomicBool,
    pub(super) folio_orders: FolioOrders,
    pub(super) partly: Partly,
    pub(super) devices: DeviceFrames,
    #[cfg(all(feature = "host-mapping", target_os = "linux"))]
    pub(super) arena: Arena,
}

impl PhysMem {
    /// Creates the memory of a machine; nothing but a directory is allocated for it.
    ///
    /// # Panics
    ///
    /// If [`try_new`](Self::try_new) fails.
    pub fn new(config: MemConfig) -> Self {
        Self::try_new(config).unwrap_or_else(|e| panic!("no such memory: {e}"))
    }
    /// Creates the memory of a machine, or returns an error if the configuration cannot be had.
    ///
    /// # Errors
    ///
    /// `InvalidInput`: more than 2^28 frames. For memory that can be lent to other processes, the
    /// error of the host, which may not support sealed memory.
    pub fn try_new(config: MemConfig) -> std::io::Result<Self> {
        if config.frames > 1 << 28 {
            let why = format!("{} frames are more than 2^28", config.frames);
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, why));
        }
        // Tried once, before a caller relies on it.
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
            batches: Batches::default(),
            exported: Exported::default(),
            pinned: PinnedFrames::default(),
            watch: OnceLock::new(),
            quota: Quota::default(),
            pools: HugePools::default(),
            has_large: AtomicBool::new(false),
            folio_orders: FolioOrders::default(),
            partly: Partly::default(),
            devices: DeviceFrames::new(0..0),
            #[cfg(all(feature = "host-mapping", target_os = "linux"))]
            arena: Arena::default(),
        })
    }
    /// Returns the number of frames, the zero page not counted.
    pub fn capacity(&self) -> u32 {
        self.config.frames
    }
    /// Returns the kind of contents.
    pub(super) fn contents(&self) -> Contents {
        self.config.contents
    }
    /// Returns the number of frames in use now.
    pub fn in_use(&self) -> u32 {
        self.free.in_use()
    }
    /// Returns the fault injection of this memory.
    pub fn inject(&self) -> &Inject {
        &self.inject
    }
    /// Returns the number of the zero page, which every hole reads.
    pub fn zero_pfn(&self) -> Pfn {
        ZERO
    }

    /// Returns the chunk of a frame, made on first use.
    #[inline(always)]
    fn chunk(&self, pfn: Pfn) -> &Chunk {
        let chunk = &self.chunks[(pfn.0 / CHUNK) as usize];
        match chunk.get() {
            Some(chunk) => chunk,
            None => chunk.get_or_init(|| self.new_chunk(pfn)),
        }
    }
    /// Returns the lowest number that a frame of a device may have: that of a new chunk.
    pub(super) fn first_device(&self) -> u32 {
        (self.config.frames + 1).next_multiple_of(CHUNK)
    }
    /// Extends the directory to frames below `end`; none is in use yet.
    pub(super) fn extend_to(&mut self, end: u32) {
        let chunks = end.div_ceil(CHUNK);
        self.chunks = (0..chunks).map(|_| OnceLock::new()).collect();
    }
    /// Returns a number above those of all frames.
    #[cfg(all(feature = "host-mapping", target_os = "linux"))]
    pub(super) fn numbers(&self) -> u32 {
        CHUNK * u32::try_from(self.chunks.len()).expect("frames have numbers of 32 bits")
    }
    /// Makes the chunk of a frame.
    #[cold]
    #[inline(never)]
    fn new_chunk(&self, pfn: Pfn) -> Chunk {
        let first = pfn.0 - pfn.0 % CHUNK;
        let end = match self.is_device(pfn) {
            true => self.devices.end(),
            false => self.config.frames + 1,
        };
        let len = CHUNK.min(end - first);
        Chunk {
            meta: Metas::new(len),
            pages: Pages::new(self.config.contents, len),
        }
    }
    /// Returns the metadata of a frame, which must not be a zero page.
    #[inline(always)]
    pub(super) fn meta(&self, pfn: Pfn) -> Meta<'_> {
        debug_assert!(pfn != ZERO, "the zero page has no counts");
        self.chunk(pfn).meta.of((pfn.0 % CHUNK) as usize)
    }
    /// Returns the contents of a frame; `None` without contents.
    #[inline]
    pub(super) fn page(&self, pfn: Pfn) -> Option<Page<'_>> {
        if self.config.contents == Contents::None {
            return None;
        }
        self.chunk(pfn).pages.page((pfn.0 % CHUNK) as usize)
    }

    /// Takes over a reference that a page-table entry or an object held by number.
    #[inline]
    pub(crate) fn adopt(&self, pfn: Pfn) -> Frame<'_> {
        Frame::adopted(self, pfn)
    }
    /// Returns the number of references on a frame, those of mappings included; 0 for a zero page,
    /// which is not counted.
    ///
    /// # Panics
    ///
    /// If this memory has no frame of that number: it is another machine's. The other methods that
    /// look at a frame panic likewise.
    pub fn refcount(&self, pfn: Pfn) -> u32 {
        self.counts(pfn).0
    }
    /// Returns the number of entries that map a frame; 0 for a zero page, which is not counted.
    pub fn mapcount(&self, pfn: Pfn) -> u32 {
        self.counts(pfn).1
    }
    /// Returns references and mappings; none for a zero page.
    #[inline]
    fn counts(&self, pfn: Pfn) -> (u32, u32) {
        if pfn.is_zero() {
            return (0, 0);
        }
        self.meta(pfn).counts.get()
    }
    /// Returns how often the frame was retired. Wraps after 2^32.
    #[inline]
    pub fn generation(&self, pfn: Pfn) -> u32 {
        self.generation_counter(pfn).load(Ordering::Acquire)
    }
    /// Returns the counter of retirements. All zero pages share the counter of page 0, which is
    /// never retired.
    #[inline]
    pub(super) fn generation_counter(&self, pfn: Pfn) -> &AtomicU32 {
        let pfn = if pfn.is_zero() { ZERO } else { pfn };
        self.chunk(pfn).meta.of((pfn.0 % CHUNK) as usize).generation
    }
    /// Returns the owner of a frame and its index there; stable while the caller keeps the frame
    /// from changing owner.
    pub(crate) fn owner(&self, pfn: Pfn) -> Option<Owner> {
        Owner::from_word(self.meta(pfn).owner.load(Ordering::Acquire))
    }
    /// Sets the owner of a frame. Release, and Acquire in [`owner`](Self::owner): a thread that
    /// finds an owner finds the frame as the owner set it up.
    pub(crate) fn set_owner(&self, pfn: Pfn, owner: Option<Owner>) {
        let word = owner.map_or(0, Owner::word);
        self.meta(pfn).owner.store(word, Ordering::Release);
    }
    /// Sets flags and returns the old ones. AcqRel, as the lock bit is taken by it.
    pub(super) fn fetch_set(&self, pfn: Pfn, flags: FrameFlags) -> FrameFlags {
        let old = self
            .meta(pfn)
            .flags
            .fetch_or(flags.bits(), Ordering::AcqRel);
        FrameFlags::from_bits_retain(old)
    }
    /// Clears flags and returns the old ones. AcqRel, as the lock bit is released by it.
    pub(super) fn fetch_clear(&self, pfn: Pfn, flags: FrameFlags) -> FrameFlags {
        let old = self
            .meta(pfn)
            .flags
            .fetch_and(!flags.bits(), Ordering::AcqRel);
        FrameFlags::from_bits_retain(old)
    }
    /// Returns the flags of a frame; none for a zero page.
    #[inline]
    pub fn flags(&self, pfn: Pfn) -> FrameFlags {
        if pfn.is_zero() {
            return FrameFlags::empty();
        }
        self.meta(pfn).flags()
    }
    /// Returns true if the frame is in the swap cache.
    ///
    /// SeqCst, with the counts: the thread that removes the last mapping asks afterwards, and
    /// reclaim counts the mappings after it has put the frame in. Of two at a time at least one
    /// sees the other, and frees the slot that no entry refers to.
    pub(super) fn in_swap_cache(&self, pfn: Pfn) -> bool {
        let flags = self.meta(pfn).flags.load(Ordering::SeqCst);
        FrameFlags::from_bits_retain(flags).contains(FrameFlags::SWAP_CACHE)
    }
    /// Sets flags; a frame that has them all is only read. SeqCst for the swap-cache flag, see
    /// `in_swap_cache`.
    pub(crate) fn set_flags(&self, pfn: Pfn, flags: FrameFlags) {
        if !self.flags(pfn).contains(flags) {
            self.meta(pfn)
                .flags
                .fetch_or(flags.bits(), Ordering::SeqCst);
        }
    }
    /// Clears flags; a frame that has none of them is only read.
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
    /// Returns the bytes of metadata made so far: directory, chunks and list of free frames,
    /// without contents.
    pub(super) fn overhead(&self) -> usize {
        let made = self.chunks.iter().filter_map(OnceLock::get);
        let chunks: usize = made.map(|c| c.meta.overhead() + c.pages.overhead()).sum();
        size_of_val(&*self.chunks) + chunks + self.free.overhead()
    }
    /// Returns true if a frame has a page of contents.
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

/// One reference on a frame: the frame is not retired while this value lives. `Clone` takes another
/// reference.
pub struct Frame<'m> {
    mem: &'m PhysMem,
    pfn: Pfn,
}

impl<'m> Frame<'m> {
    /// Takes over a reference; see [`PhysMem::adopt`].
    #[inline]
    pub(super) fn adopted(mem: &'m PhysMem, pfn: Pfn) -> Self {
        Self { mem, pfn }
    }
    /// Returns the number of the frame.
    pub fn pfn(&self) -> Pfn {
        self.pfn
    }
    /// Returns true if the frame belongs to this memory, not to another machine's.
    pub(crate) fn is_of(&self, mem: &PhysMem) -> bool {
        std::ptr::eq(self.mem, mem)
    }
    /// Reads the bytes of the frame from `offset` on.
    ///
    /// # Panics
    ///
    /// If they leave the page.
    pub fn read(&self, offset: usize, out: &mut [u8]) {
        self.mem.read(self.pfn, offset, out);
    }
    /// Writes bytes to the frame from `offset` on.
    ///
    /// # Panics
    ///
    /// If they leave the page.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        self.mem.write(self.pfn, offset, bytes);
    }
    /// Turns the reference into a number for an entry or an object that keeps it;
    /// [`PhysMem::adopt`] takes it back.
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
