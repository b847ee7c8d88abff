//! A piece of the host's addresses in which pages of a file are shown and hidden, each alone.
//!
//! Guarantee: at each moment a page of the area is shown, protected, or hidden; a thread that
//! touches a hidden page waits, and never finds anything else there. How: an address is always
//! registered with the userfaultfd before anything can be touched there. A mapping of a page is
//! made and registered at an address that is told to no one, and moved to its place by one call
//! (`mremap`), which keeps it registered. To hide a page its entry is removed, and its mapping
//! stays. docs/adr/0041-pages-of-the-host-move-with-their-guard.md has the reasons.
#![allow(unsafe_code)]

use super::{error::HostMappingError, userfault::Userfault};
use crate::{addr::PAGE_SIZE, notifier::Access};
use rustix::mm::{Advice, MapFlags, MremapFlags, ProtFlags};
use std::{
    ffi::c_void,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    ptr::{NonNull, null_mut},
};

#[allow(clippy::cast_possible_truncation)]
const PAGE: usize = PAGE_SIZE as usize;

/// Addresses in a row.
#[derive(Debug)]
pub(super) struct Area {
    at: Mapped,
    faults: Userfault,
    file: OwnedFd,
}

/// Memory that this process has mapped, and unmaps in the end.
#[derive(Debug)]
struct Mapped {
    first: NonNull<u8>,
    len: usize,
}

// SAFETY: the address is a number here. Memory behind it is not accessed, but mapped and unmapped
// by the kernel, for any thread.
unsafe impl Send for Mapped {}
// SAFETY: as above; two calls at once are two calls one after the other to the kernel.
unsafe impl Sync for Mapped {}

impl Mapped {
    fn new(at: rustix::io::Result<*mut c_void>, len: usize) -> io::Result<Self> {
        let first = NonNull::new(at?.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { first, len })
    }
    /// Maps memory without pages.
    fn blank(len: usize) -> io::Result<Self> {
        let rights = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: the kernel chooses addresses that nothing is mapped at.
        let at = unsafe { rustix::mm::mmap_anonymous(null_mut(), len, rights, flags) };
        Self::new(at, len)
    }
    /// Maps a page of a file.
    fn page(file: &OwnedFd, offset: u64) -> io::Result<Self> {
        let rights = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses addresses that nothing is mapped at.
        let at =
            unsafe { rustix::mm::mmap(null_mut(), PAGE, rights, MapFlags::SHARED, file, offset) };
        Self::new(at, PAGE)
    }
    fn address(&self) -> usize {
        self.first.addr().get()
    }
    /// Moves this mapping over a part of another one, which begins at byte `offset` of that.
    fn move_over(self, other: &Self, offset: usize) -> io::Result<()> {
        assert!(
            offset
                .checked_add(self.len)
                .is_some_and(|end| end <= other.len)
        );
        let to = other.first.as_ptr().wrapping_add(offset).cast();
        let (from, len) = (self.first.as_ptr().cast(), self.len);
        let how = MremapFlags::MAYMOVE;
        // SAFETY: the mapping at the old address is this value's. The one at the new address is a
        // part of `other`, and stays its: another page appears there, as its users expect.
        unsafe { rustix::mm::mremap_fixed(from, len, len, how, to) }?;
        std::mem::forget(self);
        Ok(())
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's, and is not used any more.
        let unmapped = unsafe { rustix::mm::munmap(self.first.as_ptr().cast(), self.len) };
        debug_assert!(unmapped.is_ok(), "{self:?}: {unmapped:?}");
    }
}

impl Area {
    /// Reserves addresses for so many pages of a file; all of them are hidden.
    pub(super) fn new(pages: usize, file: OwnedFd) -> Result<Self, HostMappingError> {
        let faults = Userfault::new()?;
        let at = Mapped::blank(pages * PAGE)?;
        let registered = faults.register_blank(at.address(), at.len);
        registered.map_err(|why| HostMappingError::NoUserfaultfd(why.into()))?;
        Ok(Self { at, faults, file })
    }
    /// Returns the first address.
    pub(super) fn first(&self) -> NonNull<u8> {
        self.at.first
    }
    /// Returns the length in bytes.
    pub(super) fn len(&self) -> usize {
        self.at.len
    }
    /// Returns true if accesses of the host's kernel wait for hidden pages; else they fail.
    pub(super) fn serves_kernel(&self) -> bool {
        self.faults.serves_kernel()
    }
    fn address_of(&self, page: usize) -> usize {
        assert!(page < self.at.len / PAGE, "page {page} of {self:?}");
        self.at.address() + page * PAGE
    }
    /// Shows a page of the file, writable or protected, in place of another one.
    pub(super) fn show(&self, page: usize, offset: u64, writable: bool) -> io::Result<()> {
        let new = Mapped::page(&self.file, offset)?;
        self.faults.register_page(new.address())?;
        self.faults.fill(new.address(), writable)?;
        new.move_over(&self.at, page * PAGE)
    }
    /// Shows the page of the file again that was shown here last.
    pub(super) fn show_again(&self, page: usize, writable: bool) -> io::Result<()> {
        Ok(self.faults.fill(self.address_of(page), writable)?)
    }
    /// Hides pages: no access through them is under way when this returns.
    pub(super) fn hide(&self, first: usize, pages: usize) {
        let len = pages * PAGE;
        assert!(
            first * PAGE + len <= self.at.len,
            "{pages} pages from {first}"
        );
        let at = self.at.first.as_ptr().wrapping_add(first * PAGE).cast();
        // SAFETY: the pages are of this area, whose users expect that other pages appear there.
        let hidden = unsafe { rustix::mm::madvise(at, len, Advice::LinuxDontNeed) };
        hidden.expect("pages that are mapped can be dropped");
    }
    /// Hides all pages, and gives back the mappings that they took.
    pub(super) fn clear(&self) -> io::Result<()> {
        let blank = Mapped::blank(self.at.len)?;
        self.faults.register_blank(blank.address(), blank.len)?;
        blank.move_over(&self.at, 0)
    }
    /// Hides a page and refuses touches of it by SIGBUS, until it is hidden again. Must not be
    /// called while another thread shows pages.
    pub(super) fn refuse(&self, page: usize) {
        self.hide(page, 1);
        let refused = self.faults.poison(self.address_of(page));
        debug_assert_eq!(refused, Ok(()), "page {page}");
    }
    /// Has threads that wait for a page touch it again.
    pub(super) fn wake(&self, page: usize) {
        self.faults.wake(self.address_of(page));
    }
    /// Returns the touches that wait: each a page and an access. Must be called again and again: to
    /// show a page is to wait for such a call.
    pub(super) fn touches(&self) -> io::Result<Vec<(usize, Access)>> {
        let touches = self.faults.read()?.into_iter();
        let of_page = |(at, access)| ((at - self.at.address()) / PAGE, access);
        Ok(touches.map(of_page).collect())
    }
}

impl AsFd for Area {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.faults.as_fd()
    }
}
