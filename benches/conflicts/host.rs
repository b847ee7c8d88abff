//! Calls of the host. Traces are read on Linux alone.
#![cfg_attr(not(target_os = "linux"), allow(unused))]

/// Runs `f` in a process of its own, which is a copy of this one, and returns true if it came to
/// its end there. The other threads must wait meanwhile, and hold no lock that `f` wants.
///
/// Both processes write to one trace. `f` begins when this one sleeps, so that what they do is not
/// mixed up there.
#[cfg(target_os = "linux")]
pub(crate) fn in_a_copy(f: impl FnOnce()) -> bool {
    let sleeps = Sleeps::new();
    // The call itself: the library's would have handlers run, in the parent at the same time as `f`
    // runs in the child. What the parent does so is on its stack.
    // SAFETY: as the caller promises.
    let pid = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
    let pid = libc::pid_t::try_from(pid).expect("it fits");
    if pid == 0 {
        sleeps.wait();
        f();
        end();
    }
    let mut status = 0;
    // SAFETY: `status` is writable.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    (waited, status) == (pid, 0)
}

/// The file that tells in which call of the kernel the thread sleeps that opened it.
#[cfg(target_os = "linux")]
struct Sleeps(libc::c_int);

#[cfg(target_os = "linux")]
impl Sleeps {
    fn new() -> Self {
        let path = c"/proc/thread-self/syscall";
        // A kernel that lets nobody look at a process that is not its child is asked to.
        // SAFETY: it has no condition.
        unsafe { libc::prctl(libc::PR_SET_PTRACER, libc::PR_SET_PTRACER_ANY) };
        // SAFETY: `path` ends.
        Self(unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) })
    }
    /// Waits, in a child, until the thread that made it waits for it. Takes no memory of the
    /// allocator, whose state must be that of the parent.
    fn wait(&self) {
        let pause = std::time::Duration::from_micros(200);
        loop {
            let mut text = [0_u8; 32];
            // SAFETY: `text` is writable, and as large as is said.
            let got = unsafe { libc::pread(self.0, text.as_mut_ptr().cast(), text.len(), 0) };
            if got <= 0 {
                // The kernel does not tell: most likely the parent sleeps a little later.
                return std::thread::sleep(10 * pause);
            }
            let digits = text.iter().take_while(|c| c.is_ascii_digit());
            let call = digits.fold(0, |n, c| 10 * n + libc::c_long::from(c - b'0'));
            if call == libc::SYS_wait4 {
                return;
            }
            std::thread::sleep(pause);
        }
    }
}

#[cfg(target_os = "linux")]
impl Drop for Sleeps {
    fn drop(&mut self) {
        // SAFETY: nothing else has the file.
        unsafe { libc::close(self.0) };
    }
}

/// Ends the process and runs nothing else.
#[cfg(target_os = "linux")]
pub(crate) fn end() -> ! {
    // SAFETY: it has no condition.
    unsafe { libc::_exit(0) }
}

/// Keeps this process on one processor: how many lanes and buckets there are depends on how many
/// processors it may use, and with that which ranges share a bucket.
#[cfg(target_os = "linux")]
pub(crate) fn take_one_processor() {
    // SAFETY: a set of processors is a bit mask, so it may be all zero.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: it has no condition.
    let now = unsafe { libc::sched_getcpu() };
    // SAFETY: the processor that runs this is one that a set has room for.
    unsafe { libc::CPU_SET(usize::try_from(now).unwrap_or(0), &mut set) };
    // SAFETY: `set` is readable, and as large as is said.
    let done = unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) };
    assert_eq!(done, 0, "no processor");
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn in_a_copy(f: impl FnOnce()) -> bool {
    false
}
#[cfg(not(target_os = "linux"))]
pub(crate) fn end() -> ! {
    std::process::exit(1)
}
#[cfg(not(target_os = "linux"))]
pub(crate) fn take_one_processor() {}
