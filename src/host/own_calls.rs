//! System calls of a recorded process whose structures lie in its own memory.
#![allow(unsafe_code)]
#![allow(
    clippy::multiple_unsafe_ops_per_block,
    reason = "all of it is system calls"
)]

use super::protocol::{Answer, FAILED, RETURNED};
use crate::addr::PAGE_SIZE;

/// Most words that requests put down for the next call.
pub(super) const WORDS: usize = 64;
/// The value of a read at the end of the file.
const END_OF_FILE: u64 = 256;

/// Arguments of system calls, which are words.
const NONE: u64 = 0;
const ONE: u64 = 1;

/// Words that requests put down, for a call that takes more than a request holds.
pub(super) struct Words([u64; WORDS]);

impl Default for Words {
    fn default() -> Self {
        Self([0; WORDS])
    }
}

impl Words {
    /// Puts words down from a place on; those behind the last place are left out.
    pub(super) fn put(&mut self, first: u64, words: &[u64]) -> Answer {
        let places = self.0.iter_mut().skip(first as usize);
        places.zip(words).for_each(|(place, word)| *place = *word);
        [RETURNED, 0]
    }
    /// Advises memory of a process; the words are the addresses and lengths of `n` ranges.
    pub(super) fn advise(&self, [pid, n, advice, flags]: [u64; 4]) -> Answer {
        let n = n.min(WORDS as u64 / 2);
        // SAFETY: the kernel reads so many words.
        unsafe {
            let process = libc::syscall(libc::SYS_pidfd_open, pid, NONE);
            if process < 0 {
                return outcome(process);
            }
            let ranges = self.0.as_ptr();
            let done = libc::syscall(libc::SYS_process_madvise, process, ranges, n, advice, flags);
            let answer = outcome(done);
            libc::close(process as libc::c_int);
            answer
        }
    }
}

/// Returns the answer for the result of a system call.
pub(super) fn outcome(result: i64) -> Answer {
    if result != -1 {
        return [RETURNED, result as u64];
    }
    // SAFETY: the thread's own, or that of a thread that waits.
    let errno = unsafe { *libc::__errno_location() };
    [FAILED, errno as u64]
}

/// Asks which of at most 64 pages are in memory: a bit for each, the lowest for the first.
pub(super) fn mincore(addr: u64, len: u64) -> Answer {
    let mut there = [0_u8; 64];
    if len.div_ceil(PAGE_SIZE) > there.len() as u64 {
        return [FAILED, libc::E2BIG as u64];
    }
    // SAFETY: the kernel writes a byte a page.
    let done = unsafe { libc::syscall(libc::SYS_mincore, addr, len, there.as_mut_ptr()) };
    if done != 0 {
        return outcome(done);
    }
    let bits = there.iter().rev();
    let all = bits.fold(0, |all, byte| all << 1 | u64::from(byte & 1));
    [RETURNED, all]
}

/// Reads one byte of a file.
pub(super) fn read_byte(fd: u64, off: u64) -> Answer {
    let mut byte = 0_u8;
    // SAFETY: the kernel writes one byte.
    match unsafe { libc::syscall(libc::SYS_pread64, fd, &raw mut byte, ONE, off) } {
        0 => [RETURNED, END_OF_FILE],
        1 => [RETURNED, byte.into()],
        failed => outcome(failed),
    }
}

/// Reads or writes memory of another process, by the call of number `nr`.
pub(super) fn copy([nr, pid, addr, len, remote]: [u64; 5]) -> Answer {
    let (here, there) = ([addr, len], [remote, len]);
    let (here, there) = (here.as_ptr(), there.as_ptr());
    // SAFETY: one range each; the kernel writes to the arena alone.
    outcome(unsafe { libc::syscall(nr as libc::c_long, pid, here, ONE, there, ONE, NONE) })
}

/// `_LINUX_CAPABILITY_VERSION_3`.
const VERSION: u32 = 0x2008_0522;
const CAP_IPC_LOCK: u32 = 14;

/// Gives up the right to lock memory without limit.
pub(super) fn drop_ipc_lock() -> Answer {
    let about = [VERSION, 0];
    let mut rights = [0_u32; 6];
    // SAFETY: the structures have the sizes of that version.
    unsafe {
        let got = libc::syscall(libc::SYS_capget, about.as_ptr(), rights.as_mut_ptr());
        if got != 0 {
            return outcome(got);
        }
        for low in &mut rights[..3] {
            *low &= !(1 << CAP_IPC_LOCK);
        }
        outcome(libc::syscall(
            libc::SYS_capset,
            about.as_ptr(),
            rights.as_ptr(),
        ))
    }
}

/// Begins an empty heap at an address. The rest of what the kernel knows of the program's layout,
/// which is told at once, is of no use to this process.
pub(super) fn begin_heap(start: u64) -> Answer {
    /// The lowest address that a process may map.
    const LOWEST: u64 = 0x10000;
    let part = |n: u64| LOWEST + n * PAGE_SIZE;
    let nothing = u64::from(u32::MAX) << 32;
    // Code, data, heap, stack, arguments, environment; no auxiliary vector, no other program.
    let layout = [
        part(0),
        part(1),
        part(2),
        part(3),
        start,
        start,
        part(4),
        part(5),
        part(6),
        part(7),
        part(8),
        0,
        nothing,
    ];
    // SAFETY: the kernel reads a structure of that size.
    outcome(unsafe {
        libc::prctl(
            libc::PR_SET_MM,
            libc::PR_SET_MM_MAP,
            layout.as_ptr(),
            size_of_val(&layout),
            NONE,
        )
    } as i64)
}
