//! Calls of the host. Traces are read on Linux alone.
#![cfg_attr(not(target_os = "linux"), allow(unused))]

/// Runs `f` in a process of its own, which is a copy of this one, and returns true if it came to
/// its end there. The other threads must wait meanwhile, and hold no lock that `f` wants.
#[cfg(target_os = "linux")]
pub(crate) fn in_a_copy(f: impl FnOnce()) -> bool {
    // The call itself: the library's would have handlers run, in the parent at the same time as `f`
    // runs in the child. What the parent does so is on its stack.
    // SAFETY: as the caller promises.
    let pid = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
    let pid = libc::pid_t::try_from(pid).expect("it fits");
    if pid == 0 {
        // By then the parent waits, most likely, so that stacks of calls are not mixed up.
        std::thread::sleep(std::time::Duration::from_millis(2));
        f();
        end();
    }
    let mut status = 0;
    // SAFETY: `status` is writable.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    (waited, status) == (pid, 0)
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
