//! `mmap` and `munmap` of the host, but anonymous memory is that of an emulated process.
//!
//! Each mapping is a machine with one process and an oracle. With `EMMU_CHURN` set, a thread forks
//! the process, moves, merges and reclaims its pages, and has another process take the frames that
//! it gives back, all the time. The oracle must find nothing, no child and no other process may see
//! a store of this one, and no frame may be left.

pub mod pages;
mod region;

use emmu::extmmu::HostMappingError;
use region::Region;
use std::{
    collections::BTreeMap,
    ffi::{c_int, c_void},
    fs::OpenOptions,
    io::Write,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

type Regions = BTreeMap<usize, Arc<Region>>;

/// All mappings, by address.
static REGIONS: Mutex<Regions> = Mutex::new(BTreeMap::new());

/// A test that fails may leave a lock behind; the others go on.
fn lock<T>(at: &Mutex<T>) -> MutexGuard<'_, T> {
    at.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes a line to the file that `EMMU_CLIENTS_LOG` names, if it does: the runner counts them.
fn note(line: &str) {
    if let Some(path) = std::env::var_os("EMMU_CLIENTS_LOG") {
        let log = OpenOptions::new().append(true).create(true).open(path);
        let line = format!("{line}\n");
        log.and_then(|mut log| log.write_all(line.as_bytes()))
            .expect("the log can be written");
    }
}

/// Maps memory as `libc::mmap` does. Anonymous memory that can be read and written is the memory of
/// an emulated process; all else is the host's.
///
/// # Safety
///
/// That of `libc::mmap`.
pub unsafe fn mmap(
    addr: *mut c_void,
    len: usize,
    prot: c_int,
    flags: c_int,
    fd: c_int,
    offset: libc::off_t,
) -> *mut c_void {
    let both = libc::PROT_READ | libc::PROT_WRITE;
    let anonymous = flags & libc::MAP_ANONYMOUS != 0 && fd == -1;
    if !anonymous || prot != both || len == 0 {
        note("host");
        // SAFETY: the caller's.
        return unsafe { libc::mmap(addr, len, prot, flags, fd, offset) };
    }
    match Region::new(len, flags & libc::MAP_SHARED != 0) {
        Err(why) if matches!(why.downcast_ref(), Some(HostMappingError::NoUserfaultfd(_))) => {
            eprintln!("skipped: the memory of a process: {why}");
            note("host");
            // SAFETY: the caller's.
            unsafe { libc::mmap(addr, len, prot, flags, fd, offset) }
        }
        Ok(region) => {
            let at = region.first();
            if std::env::var_os("EMMU_CHURN").is_some() {
                let region = Arc::clone(&region);
                thread::spawn(move || {
                    let _abort = AbortOnPanic;
                    while region.disturb() {}
                });
            }
            lock(&REGIONS).insert(at.addr(), region);
            at
        }
        Err(why) => {
            eprintln!("no memory of {len} bytes: {why}");
            // SAFETY: the address is that of this thread's `errno`.
            unsafe { *libc::__errno_location() = libc::ENOMEM };
            libc::MAP_FAILED
        }
    }
}

/// Unmaps memory as `libc::munmap` does.
///
/// # Safety
///
/// That of `libc::munmap`.
///
/// # Panics
///
/// If the oracle found something, or a frame is left.
pub unsafe fn munmap(addr: *mut c_void, len: usize) -> c_int {
    let region = lock(&REGIONS).remove(&addr.addr());
    let Some(region) = region else {
        // SAFETY: the caller's.
        return unsafe { libc::munmap(addr, len) };
    };
    note(&format!("emmu {}", region.end()));
    0
}

/// Ends the tests if a thread panics that no test waits for.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            std::process::abort();
        }
    }
}
