//! The memory that a recorded process holds by a ring of io_uring, and by pipes.
#![allow(unsafe_code)]

use super::{
    own_calls::outcome,
    protocol::{Answer, FAILED, RETURNED},
};
use std::{os::fd::RawFd, ptr};

/// Most pipes of a process.
const PIPES: usize = 64;

/// The ring and the pipes of a process, whose memory they hold.
pub(super) struct Held {
    /// The ring with the buffer, or -1.
    ring: RawFd,
    pinned: bool,
    pipes: [[RawFd; 2]; PIPES],
    open: usize,
}

impl Default for Held {
    fn default() -> Self {
        Self {
            ring: -1,
            pinned: false,
            pipes: [[-1; 2]; PIPES],
            open: 0,
        }
    }
}

const REGISTER_BUFFERS: u64 = 0;
const UNREGISTER_BUFFERS: u64 = 1;
/// The answer to a request for a descriptor that is not open.
const NOT_OPEN: Answer = [FAILED, libc::EBADF as u64];

impl Held {
    /// Forgets the ring, which is the parent's; the pipes are open here too.
    pub(super) fn forked(&mut self) {
        if self.ring >= 0 {
            // SAFETY: the ring's own descriptor, which nothing uses any more.
            unsafe { libc::close(self.ring) };
        }
        (self.ring, self.pinned) = (-1, false);
    }
    fn register(&self, what: u64, buffers: *const libc::iovec, n: u64) -> Answer {
        // SAFETY: the kernel reads `n` buffers.
        let done =
            unsafe { libc::syscall(libc::SYS_io_uring_register, self.ring, what, buffers, n) };
        outcome(done)
    }
    pub(super) fn pin(&mut self, addr: u64, len: u64) -> Answer {
        if self.ring < 0 {
            // Parameters of the ring, all zero, which the kernel fills in.
            let mut about = [0_u64; 15];
            // SAFETY: into an array of that size.
            let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 4, about.as_mut_ptr()) };
            if ring < 0 {
                return outcome(ring);
            }
            self.ring = ring as RawFd;
        }
        let _none_before = self.unpin();
        let buffer = libc::iovec {
            iov_base: ptr::without_provenance_mut(addr as usize),
            iov_len: len as usize,
        };
        let came = self.register(REGISTER_BUFFERS, &raw const buffer, 1);
        self.pinned = came[0] == RETURNED;
        came
    }
    pub(super) fn unpin(&mut self) -> Answer {
        if !self.pinned {
            return NOT_OPEN;
        }
        self.pinned = false;
        self.register(UNREGISTER_BUFFERS, ptr::null(), 0)
    }
    pub(super) fn splice(&mut self, addr: u64, len: u64) -> Answer {
        let Some(pipe) = self.pipes.get_mut(self.open) else {
            return [FAILED, libc::EMFILE as u64];
        };
        // SAFETY: two descriptors come into an array of two.
        let made = unsafe { libc::pipe(pipe.as_mut_ptr()) };
        if made != 0 {
            return outcome(-1);
        }
        self.open += 1;
        let from = libc::iovec {
            iov_base: ptr::without_provenance_mut(addr as usize),
            iov_len: len as usize,
        };
        // SAFETY: the kernel reads one buffer, and takes pages of the arena.
        outcome(unsafe { libc::vmsplice(pipe[1], &raw const from, 1, 0) } as i64)
    }
    pub(super) fn drain(&mut self) -> Answer {
        let Some(last) = self.open.checked_sub(1) else {
            return NOT_OPEN;
        };
        self.open = last;
        for fd in self.pipes[last] {
            // SAFETY: a pipe's own descriptors.
            unsafe { libc::close(fd) };
        }
        [RETURNED, 0]
    }
}
