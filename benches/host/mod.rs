//! Memory of this process, by the system calls that the address space models.
#![allow(unsafe_code)]

use std::{hint::black_box, io, ptr, time::Duration};

const PAGE: usize = 4096;
const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;
const PRIVATE: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;

/// Private anonymous memory, with small pages only.
pub(crate) struct Region {
    at: *mut u8,
    /// Where it is moved next, if it is one that moves.
    other: *mut u8,
    len: usize,
}

fn mmap(at: *mut u8, len: usize, prot: i32, fixed: bool) -> *mut u8 {
    let flags = if fixed {
        PRIVATE | libc::MAP_FIXED
    } else {
        PRIVATE
    };
    // SAFETY: a new place, or one that this module reserved.
    let got = unsafe { libc::mmap(at.cast(), len, prot, flags, -1, 0) };
    assert_ne!(
        got,
        libc::MAP_FAILED,
        "mmap: {}",
        io::Error::last_os_error()
    );
    got.cast()
}

fn munmap(at: *mut u8, len: usize) {
    // SAFETY: memory that this module mapped, and to which nobody has a reference.
    assert_eq!(unsafe { libc::munmap(at.cast(), len) }, 0);
}

fn small_pages(at: *mut u8, len: usize) {
    // SAFETY: advice about memory of our own. Without huge pages the kernel knows no such advice,
    // which is as good.
    let _ = unsafe { libc::madvise(at.cast(), len, libc::MADV_NOHUGEPAGE) };
}

impl Region {
    /// So many pages.
    pub(crate) fn new(pages: u64) -> Self {
        let len = pages as usize * PAGE;
        let at = mmap(ptr::null_mut(), len, RW, false);
        small_pages(at, len);
        Self {
            at,
            other: ptr::null_mut(),
            len,
        }
    }
    /// So many pages at a multiple of 1 GiB, and room for as many at another.
    pub(crate) fn aligned(pages: u64) -> Self {
        const GIB: usize = 1 << 30;
        let len = (pages as usize * PAGE).next_multiple_of(GIB);
        let room = mmap(ptr::null_mut(), 3 * len + GIB, libc::PROT_NONE, false);
        let first = (room as usize).next_multiple_of(GIB) as *mut u8;
        mmap(first, len, RW, true);
        small_pages(first, len);
        Self {
            at: first,
            other: first.wrapping_add(len),
            len,
        }
    }
    fn page(&self, n: u64) -> *mut u8 {
        self.at.wrapping_add(n as usize * PAGE)
    }
    /// Loads a byte of each of the first `pages`.
    pub(crate) fn load(&self, pages: u64) {
        for n in 0..pages {
            // SAFETY: inside the region, which is readable.
            black_box(unsafe { self.page(n).read_volatile() });
        }
    }
    /// Stores a byte into each of the first `pages`.
    pub(crate) fn store(&self, pages: u64) {
        for n in 0..pages {
            // SAFETY: inside the region, which is writable.
            unsafe { self.page(n).write_volatile(1) };
        }
    }
    /// Drops every page.
    pub(crate) fn discard(&self) {
        // SAFETY: memory of our own, to which nobody has a reference.
        let done = unsafe { libc::madvise(self.at.cast(), self.len, libc::MADV_DONTNEED) };
        assert_eq!(done, 0);
    }
    /// Unmaps one page.
    pub(crate) fn unmap(&self, n: u64) {
        munmap(self.page(n), PAGE);
    }
    /// Maps one page anew, with rights that its neighbours do not have.
    pub(crate) fn remap(&self, n: u64) {
        let prot = if n.is_multiple_of(2) {
            libc::PROT_READ
        } else {
            RW
        };
        mmap(self.page(n), PAGE, prot, true);
    }
    /// Moves all of it to its other place and back so many times, and says how long that took.
    pub(crate) fn relocate(&mut self, times: usize) -> Duration {
        munmap(self.other, self.len);
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        let len = self.len;
        let time = crate::ratio::timed(|| {
            for _ in 0..2 * times {
                let (from, to) = (self.at.cast(), self.other.cast());
                // SAFETY: both places are of this region, and nothing else is mapped meanwhile.
                let got = unsafe { libc::mremap(from, len, len, flags, to) };
                assert_eq!(got, to, "mremap: {}", io::Error::last_os_error());
                std::mem::swap(&mut self.at, &mut self.other);
            }
        });
        // Nobody else gets the place until the next time.
        mmap(self.other, self.len, libc::PROT_NONE, true);
        time
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        munmap(self.at, self.len);
        if !self.other.is_null() {
            munmap(self.other, self.len);
        }
    }
}

/// A child that waits for its end.
pub(crate) struct Child(libc::pid_t);

impl Child {
    pub(crate) fn fork() -> Self {
        // SAFETY: the child calls nothing but pause and _exit.
        match unsafe { libc::fork() } {
            0 => loop {
                // SAFETY: waits for the signal that ends this process.
                unsafe { libc::pause() };
            },
            -1 => panic!("fork: {}", io::Error::last_os_error()),
            pid => Self(pid),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // SAFETY: a child of this process that nobody else waits for.
        unsafe { libc::kill(self.0, libc::SIGKILL) };
        // SAFETY: as above; the status is of no interest.
        let gone = unsafe { libc::waitpid(self.0, ptr::null_mut(), 0) };
        assert_eq!(gone, self.0);
    }
}
