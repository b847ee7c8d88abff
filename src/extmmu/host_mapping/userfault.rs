//! The host's userfaultfd: touches of memory that shows nothing wait, and are reported here.
//!
//! Numbers and layouts are those of the kernel's `linux/userfaultfd.h`.
#![allow(unsafe_code)]

use super::error::HostMappingError;
use crate::{addr::PAGE_SIZE, notifier::Access};
use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
    ioctl::{Opcode, Updater, ioctl, opcode},
    mm::UserfaultfdFlags,
};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd},
};

const fn both_ways<const WORDS: usize>(number: u8) -> Opcode {
    opcode::read_write::<[u64; WORDS]>(0xaa, number)
}
const NEW: Opcode = opcode::none(0xaa, 0);
const API: Opcode = both_ways::<3>(0x3f);
const REGISTER: Opcode = both_ways::<4>(0);
const WAKE: Opcode = opcode::read::<[u64; 2]>(0xaa, 2);
const WRITE_PROTECT: Opcode = both_ways::<3>(6);
const CONTINUE: Opcode = both_ways::<4>(7);
const POISON: Opcode = both_ways::<4>(8);

/// The version of the interface.
const VERSION: u64 = 0xaa;
/// The abilities that the kernel must have, by bits of `UFFD_FEATURE_*`: tell a store to a
/// protected page, keep memory registered that moves, report pages of shared memory that are not
/// mapped here, protect them, and refuse touches. All of it is in Linux 6.6.
const FEATURES: u64 = 1 << 0 | 1 << 2 | 1 << 10 | 1 << 12 | 1 << 14;
/// Touches of pages that do not exist, of pages that are protected, and of pages of shared memory
/// that exist and are not mapped here.
const MISSING: u64 = 1 << 0;
const PROTECTED: u64 = 1 << 1;
const MINOR: u64 = 1 << 2;
/// Modes of `UFFDIO_CONTINUE`.
const DONT_WAKE: u64 = 1 << 0;
const PROTECT: u64 = 1 << 1;

/// The size of a message, and the event numbers at its beginning.
const MESSAGE: usize = 32;
const PAGE_FAULT: u8 = 0x12;
/// Flags of a fault: a store, and a store to a protected page.
const STORES: u64 = 1 << 0 | 1 << 1;

/// A userfaultfd.
#[derive(Debug)]
pub(super) struct Userfault {
    fd: OwnedFd,
    kernel: bool,
}

/// Opens a userfaultfd, and returns true if it serves the accesses of the host's kernel as well.
fn open() -> io::Result<(OwnedFd, bool)> {
    let flags = UserfaultfdFlags::CLOEXEC | UserfaultfdFlags::NONBLOCK;
    // SAFETY: the descriptor does nothing to memory before memory is registered.
    if let Ok(fd) = unsafe { rustix::mm::userfaultfd(flags) } {
        return Ok((fd, true));
    }
    if let Ok(fd) = open_by_device(flags) {
        return Ok((fd, true));
    }
    /// `UFFD_USER_MODE_ONLY`.
    const USER_MODE: u32 = 1;
    let flags = flags | UserfaultfdFlags::from_bits_retain(USER_MODE);
    // SAFETY: as above.
    let fd = unsafe { rustix::mm::userfaultfd(flags) };
    Ok((fd?, false))
}
/// Opens one by `/dev/userfaultfd`, which has permissions of its own.
fn open_by_device(flags: UserfaultfdFlags) -> io::Result<OwnedFd> {
    let device = rustix::fs::open(
        "/dev/userfaultfd",
        OFlags::RDWR | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    // SAFETY: `USERFAULTFD_IOC_NEW` takes the flags as a number, and returns a descriptor.
    let made = unsafe { ioctl(device, NewFd(flags.bits())) };
    Ok(made?)
}
/// The request for a new descriptor.
struct NewFd(u32);
// SAFETY: the kernel reads and writes no memory for it.
unsafe impl rustix::ioctl::Ioctl for NewFd {
    type Output = OwnedFd;
    const IS_MUTATING: bool = false;
    fn opcode(&self) -> Opcode {
        NEW
    }
    fn as_ptr(&mut self) -> *mut std::ffi::c_void {
        std::ptr::without_provenance_mut(self.0 as usize)
    }
    unsafe fn output_from_ptr(
        made: rustix::ioctl::IoctlOutput,
        _: *mut std::ffi::c_void,
    ) -> rustix::io::Result<OwnedFd> {
        // SAFETY: the call has just made the descriptor, and it has no other owner.
        Ok(unsafe { OwnedFd::from_raw_fd(made) })
    }
}

impl Userfault {
    /// Opens one, and asks for all that is needed.
    pub(super) fn new() -> Result<Self, HostMappingError> {
        let (fd, kernel) = open().map_err(HostMappingError::NoUserfaultfd)?;
        let new = Self { fd, kernel };
        let asked = new.call::<API, 3>([VERSION, FEATURES, 0]);
        asked.map_err(|why| HostMappingError::NoUserfaultfd(why.into()))?;
        Ok(new)
    }
    /// Returns true if accesses of the host's kernel wait as well; else they fail with `EFAULT`.
    pub(super) fn serves_kernel(&self) -> bool {
        self.kernel
    }
    fn call<const OPCODE: Opcode, const WORDS: usize>(
        &self,
        mut words: [u64; WORDS],
    ) -> Result<(), Errno> {
        loop {
            // SAFETY: each opcode is made of the size of its argument, which has words alone.
            let call = unsafe { Updater::<OPCODE, [u64; WORDS]>::new(&mut words) };
            // SAFETY: the call changes memory that its caller registered, and in which the caller
            // expects the change; no reference leads there.
            match unsafe { ioctl(&self.fd, call) } {
                // Memory is being moved; nothing was done.
                Err(Errno::AGAIN) => std::thread::yield_now(),
                other => return other,
            }
        }
    }
    /// Has touches of memory without pages wait.
    pub(super) fn register_blank(&self, at: usize, len: usize) -> Result<(), Errno> {
        self.call::<REGISTER, 4>([at as u64, len as u64, MISSING | PROTECTED, 0])
    }
    /// Has touches of a page of a file wait while it is not mapped.
    pub(super) fn register_page(&self, at: usize) -> Result<(), Errno> {
        self.call::<REGISTER, 4>([at as u64, PAGE_SIZE, MINOR | PROTECTED, 0])
    }
    /// Maps the page of the file, `writable` or protected. A page that is mapped is left alone, but
    /// for its protection where it is to be writable. Wakes no thread.
    pub(super) fn fill(&self, at: usize, writable: bool) -> Result<(), Errno> {
        let mode = DONT_WAKE | if writable { 0 } else { PROTECT };
        match self.call::<CONTINUE, 4>([at as u64, PAGE_SIZE, mode, 0]) {
            Err(Errno::EXIST) if writable => self.unprotect(at),
            Err(Errno::EXIST) => Ok(()),
            other => other,
        }
    }
    fn unprotect(&self, at: usize) -> Result<(), Errno> {
        // The second mode of `UFFDIO_WRITEPROTECT` is not to wake.
        self.call::<WRITE_PROTECT, 3>([at as u64, PAGE_SIZE, 1 << 1])
    }
    /// Refuses touches of a page from now on, by SIGBUS, if nothing is mapped there.
    pub(super) fn poison(&self, at: usize) -> Result<(), Errno> {
        // A page that was protected leaves a mark of that, where nothing else can be entered.
        self.unprotect(at)?;
        self.call::<POISON, 4>([at as u64, PAGE_SIZE, DONT_WAKE, 0])
    }
    /// Has threads that wait for a page touch it again.
    pub(super) fn wake(&self, at: usize) {
        let woken = self.call::<WAKE, 2>([at as u64, PAGE_SIZE]);
        debug_assert_eq!(woken, Ok(()), "page {at:#x} is registered");
    }
    /// Reads the touches that wait now: the first address of the page, and the access. Memory that
    /// moved is reported here as well, and the mover waits until that was read.
    pub(super) fn read(&self) -> io::Result<Vec<(usize, Access)>> {
        let mut messages = [0; 16 * MESSAGE];
        let len = match rustix::io::read(&self.fd, &mut messages) {
            Err(Errno::AGAIN) => 0,
            other => other?,
        };
        let word = |message: &[u8], at: usize| {
            let bytes = message[at..at + 8].try_into().expect("eight bytes");
            u64::from_ne_bytes(bytes)
        };
        let messages = messages[..len].chunks_exact(MESSAGE);
        let faults = messages.filter(|message| message[0] == PAGE_FAULT);
        Ok(faults
            .map(|message| {
                let page = usize::try_from(word(message, 16) & !(PAGE_SIZE - 1));
                let access = match word(message, 8) & STORES {
                    0 => Access::Read,
                    _ => Access::Write,
                };
                (page.expect("an address of this process"), access)
            })
            .collect())
    }
}

impl AsFd for Userfault {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
