//! The loop of a recorded process: requests from a pipe, one after the other, by system calls and
//! single accesses.
//!
//! The process was forked from one with threads, so nothing here allocates, locks or unwinds.
#![allow(unsafe_code)]
#![allow(
    clippy::multiple_unsafe_ops_per_block,
    reason = "all of it is system calls"
)]

use super::{
    MAX_PROCESSES,
    access::{catch_signals, execute, leave, load, store},
    protocol::{
        Answer, CALL, DRAIN, EXEC, FAILED, FORK, LOAD, MOVE_PAGES, MOVED, PIN, RETURNED, Request,
        SPLICE, STORE, UNPIN,
    },
    raw::MOVE,
};
use std::{io, os::fd::RawFd, ptr};

/// Every byte, as a source of writes.
pub(super) static BYTES: [u8; 256] = {
    let mut bytes = [0; 256];
    let mut n = 0;
    while n < 256 {
        bytes[n] = n as u8;
        n += 1;
    }
    bytes
};

/// The set of nodes that has node 0 alone.
pub(super) static FIRST_NODE: u64 = 1;

/// The pipe ends of each process: requests in, answers out.
pub(super) type Ends = [(RawFd, RawFd); MAX_PROCESSES as usize];

/// The start conditions of the first process.
pub(super) struct Start<'a> {
    pub(super) ends: Ends,
    /// The descriptors that the process needs, ascending; the process closes all others.
    pub(super) keep: &'a [RawFd],
    /// The process holds a virtual machine.
    pub(super) kvm: bool,
    /// The process has no huge pages, whatever the system's setting.
    pub(super) no_thp: bool,
}

/// Forks the first process, which lives until its request pipe is closed.
pub(super) fn spawn(start: &Start<'_>) -> io::Result<i32> {
    // SAFETY: the child only makes system calls.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => live(start),
        pid => Ok(pid),
    }
}

/// Waits for a child of this process.
pub(super) fn wait(pid: i32) {
    // SAFETY: no memory of ours is written to.
    unsafe { libc::waitpid(pid, ptr::null_mut(), 0) };
}

const KVM_CREATE_VM: libc::c_ulong = 0xae01;

fn live(start: &Start<'_>) -> ! {
    // SAFETY: system calls on values of this function.
    unsafe {
        let mut next = 3;
        for &fd in start.keep {
            if next < fd {
                libc::syscall(libc::SYS_close_range, next, fd - 1, 0);
            }
            next = fd + 1;
        }
        libc::syscall(libc::SYS_close_range, next, RawFd::MAX, 0);
        let mut one: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(usize::try_from(libc::sched_getcpu()).unwrap_or(0), &mut one);
        libc::sched_setaffinity(0, size_of_val(&one), &one);
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        if start.no_thp {
            libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0);
        }
        // The kernel reaps children of this process.
        libc::signal(libc::SIGCHLD, libc::SIG_IGN);
        catch_signals();
        let mut vm = -1;
        if start.kvm {
            let kvm = libc::open(c"/dev/kvm".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC);
            vm = libc::ioctl(kvm, KVM_CREATE_VM, 0);
        }
        // The greeting is 1 with a virtual machine, and 0 without.
        serve(&start.ends, 0, u64::from(vm >= 0))
    }
}

/// Greets, then serves requests.
fn serve(ends: &Ends, process: usize, greeting: u64) -> ! {
    let (mut read, mut write) = ends[process];
    tell(write, [RETURNED, greeting]);
    let mut held = Held::default();
    let mut words = [0_u64; 5];
    loop {
        let mut request: Request = [0; 8];
        let size = size_of_val(&request);
        // SAFETY: into a buffer of that size.
        let n = unsafe { libc::read(read, request.as_mut_ptr().cast(), size) };
        if usize::try_from(n) != Ok(size) {
            leave(0);
        }
        let answer = match request[0] {
            CALL => call(&request),
            LOAD => load(request[1]),
            STORE => store(request[1], request[2] as u8),
            EXEC => execute(request[1]),
            MOVE_PAGES => {
                words = [request[2], request[3], request[4], request[5], 0];
                // SAFETY: the structure of the call, which is written to.
                outcome(
                    unsafe { libc::ioctl(request[1] as RawFd, MOVE, words.as_mut_ptr()) }.into(),
                )
            }
            MOVED => [RETURNED, words[4]],
            FORK => {
                // SAFETY: parent and child go on with system calls only.
                let pid = unsafe { libc::fork() };
                if pid == 0 {
                    held.forked();
                    (read, write) = ends[request[1] as usize % ends.len()];
                    [RETURNED, 0]
                } else {
                    outcome(i64::from(pid))
                }
            }
            PIN => held.pin(request[1], request[2]),
            UNPIN => held.unpin(),
            SPLICE => held.splice(request[1], request[2]),
            DRAIN => held.drain(),
            _ => {
                // The end of a ring gives its buffers back some time later.
                let _none_pinned = held.unpin();
                leave(0)
            }
        };
        tell(write, answer);
    }
}

/// Most pipes of a process.
const PIPES: usize = 64;

/// The ring and the pipes of a process, whose memory they hold.
struct Held {
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
    fn forked(&mut self) {
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
    fn pin(&mut self, addr: u64, len: u64) -> Answer {
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
    fn unpin(&mut self) -> Answer {
        if !self.pinned {
            return NOT_OPEN;
        }
        self.pinned = false;
        self.register(UNREGISTER_BUFFERS, ptr::null(), 0)
    }
    fn splice(&mut self, addr: u64, len: u64) -> Answer {
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
    fn drain(&mut self) -> Answer {
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

fn tell(write: RawFd, answer: Answer) {
    let size = size_of_val(&answer);
    // SAFETY: from a buffer of that size.
    let n = unsafe { libc::write(write, answer.as_ptr().cast(), size) };
    if usize::try_from(n) != Ok(size) {
        leave(3);
    }
}

fn call(request: &Request) -> Answer {
    let [_, nr, a, b, c, d, e, f] = *request;
    // SAFETY: the family asks only for calls that work on the arena and on the files of a plan.
    outcome(unsafe { libc::syscall(nr as libc::c_long, a, b, c, d, e, f) })
}

fn outcome(result: i64) -> Answer {
    if result != -1 {
        return [RETURNED, result as u64];
    }
    // SAFETY: the thread's own.
    let errno = unsafe { *libc::__errno_location() };
    [FAILED, errno as u64]
}
