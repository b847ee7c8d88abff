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
    held::Held,
    own_calls::{Words, begin_heap, copy, drop_ipc_lock, mincore, outcome, read_byte},
    protocol::{
        ADVISE, Answer, BEGIN_HEAP, CALL, COPY, DRAIN, DROP_IPC_LOCK, EXEC, FAILED, FORK, LOAD,
        MINCORE, MOVE_PAGES, MOVED, PIN, PUT, READ_BYTE, RETURNED, Request, SPLICE, STORE, THREAD,
        UNPIN,
    },
    raw::MOVE,
};
use std::{
    cell::UnsafeCell,
    ffi::{c_int, c_void},
    io,
    mem::MaybeUninit,
    os::fd::RawFd,
    ptr,
};

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
        let mut held = Held::default();
        serve(&start.ends, 0, (u64::from(vm >= 0), &raw mut held))
    }
}

/// Greets, then serves requests. `held` is the process's own, and lives as long as the process.
fn serve(ends: &Ends, process: usize, (greeting, held): (u64, *mut Held)) -> ! {
    let (mut read, mut write) = ends[process];
    tell(write, [RETURNED, greeting]);
    let mut words = Words::default();
    let mut moved = 0;
    loop {
        let mut request: Request = [0; 8];
        let size = size_of_val(&request);
        // SAFETY: into a buffer of that size.
        let n = unsafe { libc::read(read, request.as_mut_ptr().cast(), size) };
        if usize::try_from(n) != Ok(size) {
            leave(0);
        }
        let [kind, a, b, c, d, e, ..] = request;
        let answer = match kind {
            CALL => call(&request),
            LOAD => load(a),
            STORE => store(a, b as u8),
            EXEC => execute(a),
            MOVE_PAGES => {
                let (answer, bytes) = move_pages(a, [b, c, d, e, 0]);
                moved = bytes;
                answer
            }
            MOVED => [RETURNED, moved],
            THREAD => begin(ends, a as usize, held),
            FORK => {
                let pid = fork();
                if pid == 0 {
                    // SAFETY: no other thread is there.
                    unsafe { (*held).forked() };
                    (read, write) = ends[a as usize % ends.len()];
                    [RETURNED, 0]
                } else {
                    outcome(pid)
                }
            }
            // SAFETY: the other threads of the process wait for requests, and this is the only one.
            PIN | UNPIN | SPLICE | DRAIN => unsafe { hold(&mut *held, kind, (a, b)) },
            PUT => words.put(a, &request[2..]),
            ADVISE => words.advise([a, b, c, d]),
            MINCORE => mincore(a, b),
            READ_BYTE => read_byte(a, b),
            COPY => copy([a, b, c, d, e]),
            DROP_IPC_LOCK => drop_ipc_lock(),
            BEGIN_HEAP => begin_heap(a),
            _ => {
                // The end of a ring gives its buffers back some time later.
                // SAFETY: as above.
                let _none_pinned = unsafe { (*held).unpin() };
                leave(0)
            }
        };
        tell(write, answer);
    }
}

fn hold(held: &mut Held, kind: u64, (addr, len): (u64, u64)) -> Answer {
    match kind {
        PIN => held.pin(addr, len),
        UNPIN => held.unpin(),
        SPLICE => held.splice(addr, len),
        _ => held.drain(),
    }
}

/// Moves pages by a userfaultfd, and returns how many bytes of them were moved.
fn move_pages(fd: u64, mut words: [u64; 5]) -> (Answer, u64) {
    // SAFETY: the structure of the call, which is written to.
    let done = unsafe { libc::ioctl(fd as RawFd, MOVE, words.as_mut_ptr()) };
    (outcome(done.into()), words[4])
}

/// Forks this thread, past the C library: parent and child go on with system calls only.
fn fork() -> i64 {
    let (as_usual, none) = (libc::SIGCHLD as u64, 0_u64);
    // SAFETY: the child has a copy of this stack.
    unsafe { libc::syscall(libc::SYS_clone, as_usual, none, none, none, none) }
}

/// The beginning of a thread: its number, and things of its process.
struct Born {
    ends: *const Ends,
    number: usize,
    held: *mut Held,
}

/// The stack of a thread, and its beginning.
#[repr(C, align(4096))]
struct Stack {
    room: UnsafeCell<MaybeUninit<[u8; 1 << 16]>>,
    born: UnsafeCell<MaybeUninit<Born>>,
}

// SAFETY: a process has at most one thread of a number, which alone uses its stack.
unsafe impl Sync for Stack {}

static STACKS: [Stack; MAX_PROCESSES as usize] = [const {
    Stack {
        room: UnsafeCell::new(MaybeUninit::uninit()),
        born: UnsafeCell::new(MaybeUninit::uninit()),
    }
}; MAX_PROCESSES as usize];

/// Begins a thread of this process that serves requests as `number`.
fn begin(ends: &Ends, number: usize, held: *mut Held) -> Answer {
    let Some(stack) = STACKS.get(number) else {
        return [FAILED, libc::EAGAIN as u64];
    };
    let born = Born {
        ends: &raw const *ends,
        number,
        held,
    };
    let flags = libc::CLONE_VM
        | libc::CLONE_FS
        | libc::CLONE_FILES
        | libc::CLONE_SIGHAND
        | libc::CLONE_THREAD
        | libc::CLONE_SYSVSEM;
    // SAFETY: the stack is the new thread's alone, and ends where the room does.
    let tid = unsafe {
        let at = stack.born.get().cast::<Born>();
        at.write(born);
        let top = stack.room.get().add(1).cast::<c_void>();
        libc::clone(threaded, top, flags, at.cast())
    };
    outcome(tid.into())
}

extern "C" fn threaded(born: *mut c_void) -> c_int {
    // SAFETY: the one that began this thread wrote it, and the ends live as long as the process.
    unsafe {
        let born = &*born.cast::<Born>();
        serve(&*born.ends, born.number, (0, born.held))
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
