//! Reading, writing, comparing and copying the bytes of frames.
//!
//! Without [contents](super::Contents::None), reads give zeros and writes are lost.

#[cfg(all(feature = "host-mapping", target_os = "linux"))]
use super::arena;
use super::{
    contents::Page,
    host_page::HostPage,
    mem::PhysMem,
    pfn::{PAGE_BYTES, ZERO},
    word::WordAccess,
};
use crate::addr::Pfn;
use std::ptr::NonNull;

/// The bytes that a read of a free frame gives in debug builds, so that a number kept too long
/// shows.
const POISON: u8 = 0x6b;

/// Fills with zeros. A byte by itself is stored here: a call takes longer than the access.
#[inline(always)]
fn fill_with_zeros(out: &mut [u8]) {
    match out {
        [byte] => *byte = 0,
        bytes => bytes.fill(0),
    }
}

impl PhysMem {
    /// Copies bytes of a frame, from `offset` on, into `out`.
    #[inline(always)]
    pub(crate) fn read(&self, pfn: Pfn, offset: usize, out: &mut [u8]) {
        let zero = pfn.is_zero();
        let Some(page) = self.page(if zero { ZERO } else { pfn }) else {
            return fill_with_zeros(out);
        };
        // Without the lock of its bytes, on which all threads that read holes would meet.
        if zero {
            assert!(offset + out.len() <= PAGE_BYTES, "a read leaves its page");
            return out.fill(0);
        }
        page.read(offset, out);
        if cfg!(debug_assertions) && self.refcount(pfn) == 0 {
            out.fill(POISON);
        }
    }
    /// Stores bytes into a frame.
    ///
    /// # Panics
    ///
    /// If the frame is the zero page, in release builds too: every process would read the bytes.
    pub(crate) fn write(&self, pfn: Pfn, offset: usize, bytes: &[u8]) {
        assert!(!pfn.is_zero(), "the zero page is written");
        if let Some(page) = self.page(pfn) {
            page.write(offset, bytes);
        }
    }
    /// Does an atomic access of a word of a frame, and returns what it was before: 0 without
    /// contents.
    ///
    /// # Panics
    ///
    /// If the word leaves the page or is not aligned; if it may be stored, and the frame is the
    /// zero page.
    pub(crate) fn access_word(&self, pfn: Pfn, offset: usize, access: &WordAccess) -> u64 {
        let zero = pfn.is_zero();
        assert!(!zero || access.is_load(), "the zero page is written");
        let page = self.page(if zero { ZERO } else { pfn });
        page.map_or(0, |page| page.access(offset, access))
    }
    /// Gives the bytes of a frame an address in this process, and takes them for written from now
    /// on. Returns `None` without contents, and while the bytes are lent to other processes.
    ///
    /// It is the frame's as long as the machine lives, a multiple of 4096. All zero pages have one
    /// address, which must not be stored to.
    pub(crate) fn address(&self, pfn: Pfn) -> Option<NonNull<u8>> {
        let pfn = if pfn.is_zero() { ZERO } else { pfn };
        self.page(pfn)?.address(|| self.new_host_page(pfn))
    }
    /// Makes the page of a frame that gets an address: a page of the arena, or, if the host has no
    /// memory of that kind, one that can be mapped nowhere else.
    #[cfg(all(feature = "host-mapping", target_os = "linux"))]
    fn new_host_page(&self, pfn: Pfn) -> HostPage {
        let memory = self.arena.memory(self.numbers());
        memory.map_or_else(HostPage::new, |memory| arena::page_of(memory, pfn))
    }
    #[cfg(not(all(feature = "host-mapping", target_os = "linux")))]
    fn new_host_page(&self, _pfn: Pfn) -> HostPage {
        HostPage::new()
    }
    /// Returns a descriptor of the memory file (`memfd_create`) in which frames lie that have an
    /// address in the host, to be mapped elsewhere, also by another process. Returns `None` if
    /// frames have no contents, or the host refuses such memory.
    ///
    /// Its length is fixed. A frame is found in it by
    /// [`HeldPages::memfd_offsets`](crate::mm::HeldPages::memfd_offsets), or by the messages of a
    /// vhost front-end. A process that has the descriptor reads and writes every frame.
    #[cfg(all(feature = "host-mapping", target_os = "linux"))]
    pub fn memfd(&self) -> Option<std::os::fd::OwnedFd> {
        let _has_contents = self.page(ZERO)?;
        let memory = self.arena.memory(self.numbers())?;
        memory.fd().try_clone_to_owned().ok()
    }
    /// Gives the bytes of a frame an address, as [`address`](Self::address) does, and returns their
    /// offset in the arena. Returns `None` where that has no address, and for a frame that got one
    /// outside of the arena.
    #[cfg(all(feature = "host-mapping", target_os = "linux"))]
    pub(crate) fn offset_in_memfd(&self, pfn: Pfn) -> Option<u64> {
        let address = self.address(pfn)?;
        let memory = self.arena.memory(self.numbers())?;
        let at = arena::offset_of(if pfn.is_zero() { ZERO } else { pfn });
        // The host has memory for the page from now on, so that another mapping finds it.
        memory.read(at, &mut [0]);
        (memory.address(at) == address).then_some(at as u64)
    }
    /// Returns true if the frame holds nothing but zeros; false without contents, as the bytes are
    /// unknown.
    pub(crate) fn is_unused(&self, pfn: Pfn) -> bool {
        self.page(pfn).is_some_and(Page::is_zero)
    }
    /// Returns true if two frames hold equal bytes; false without contents, as the bytes are
    /// unknown.
    pub(crate) fn equal(&self, a: Pfn, b: Pfn) -> bool {
        match (self.page(a), self.page(b)) {
            (Some(Page::Own(a)), Some(Page::Own(b))) => a.equals(b),
            #[cfg(all(feature = "remote", target_os = "linux"))]
            (Some(Page::Shared(a)), Some(Page::Shared(b))) => a.equals(b),
            _ => false,
        }
    }
    /// Copies the contents of `from` to `to`.
    ///
    /// # Panics
    ///
    /// If `to` is the zero page, as [`write`](Self::write) does.
    pub(crate) fn copy(&self, from: Pfn, to: Pfn) {
        assert!(to != ZERO, "the zero page is written");
        match (self.page(from), self.page(to)) {
            (Some(Page::Own(from)), Some(Page::Own(to))) => to.copy_from(from),
            #[cfg(all(feature = "remote", target_os = "linux"))]
            (Some(Page::Shared(from)), Some(Page::Shared(to))) => to.copy_from(from),
            _ => {}
        }
    }
}
