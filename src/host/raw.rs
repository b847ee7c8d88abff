//! System calls that have no safe wrapper elsewhere.
#![allow(unsafe_code)]

use std::{
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, RawFd},
    ptr,
};

/// Returns a new file of secret memory, without a size.
pub(super) fn memfd_secret() -> io::Result<File> {
    let flags = u64::from(libc::O_CLOEXEC.cast_unsigned());
    // SAFETY: the call takes a number alone.
    let fd = unsafe { libc::syscall(libc::SYS_memfd_secret, flags) };
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new, and nothing else has it.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// Removes a segment of System V once nothing has it attached.
pub(super) fn remove_segment(id: i32) {
    // SAFETY: `IPC_RMID` takes no structure.
    unsafe { libc::shmctl(id, libc::IPC_RMID, ptr::null_mut()) };
}

/// The size that the number of an `ioctl` gives to its structure.
const fn size_of_request(number: u64) -> usize {
    (number >> 16 & 0x3fff) as usize
}

/// Makes a call on a userfaultfd, whose structure is these words.
///
/// # Panics
///
/// Panics if the number is of another kind of file or of another size.
pub(super) fn on_userfaultfd<const N: usize>(
    fd: BorrowedFd<'_>,
    number: u64,
    words: &mut [u64; N],
) -> io::Result<()> {
    assert!(number >> 8 & 0xff == 0xaa && size_of_request(number) == 8 * N);
    // SAFETY: the kernel reads and writes the structure, which has that size; it writes through no
    // address in it, and a bad address of a source is an error.
    match unsafe { libc::ioctl(fd.as_raw_fd(), number, words.as_mut_ptr()) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// `UFFDIO_MOVE`.
pub(super) const MOVE: u64 = 0xc028_aa05;

/// One region that a scan found: its start, its end, its categories.
pub(super) type Region = [u64; 3];

/// `PAGEMAP_SCAN`.
const SCAN: u64 = 0xc060_6610;

/// Scans a process by its `pagemap`, and returns the regions, at most as many as `most`.
/// `words` are the arguments; those of the list of regions are filled in.
pub(super) fn scan(pagemap: &File, words: &mut [u64; 12], most: usize) -> io::Result<Vec<Region>> {
    let mut regions: Vec<Region> = vec![[0; 3]; most];
    (words[0], words[5], words[6]) = (96, regions.as_mut_ptr() as u64, most as u64);
    // SAFETY: the structure has the size that its first word names, and the list has as many
    // regions as its word says.
    let found = unsafe { libc::ioctl(pagemap.as_raw_fd(), SCAN, words.as_mut_ptr()) };
    let found = usize::try_from(found).map_err(|_| io::Error::last_os_error())?;
    regions.truncate(found);
    Ok(regions)
}

/// A process that a signal has killed, and that its tracer keeps from its end.
pub(super) struct Stopped(i32);

/// Kills a process and waits until it is about to end; it ends when the value is dropped. Only the
/// calling thread can drop it.
pub(super) fn stopped_at_its_end(pid: i32) -> io::Result<Stopped> {
    let (nowhere, at_exit) = (
        ptr::null_mut::<libc::c_void>(),
        libc::PTRACE_O_TRACEEXIT as usize,
    );
    let options = ptr::without_provenance_mut::<libc::c_void>(at_exit);
    // SAFETY: no memory of ours is written to.
    if unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, nowhere, options) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let stopped = Stopped(pid);
    // SAFETY: as above; the process is a recorded one.
    if unsafe { libc::kill(pid, libc::SIGKILL) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as above.
    if unsafe { libc::waitpid(pid, ptr::null_mut(), libc::__WALL) } != pid {
        return Err(io::Error::last_os_error());
    }
    Ok(stopped)
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let nothing = ptr::null_mut::<libc::c_void>();
        // SAFETY: no memory of ours is written to.
        unsafe { libc::ptrace(libc::PTRACE_DETACH, self.0, nothing, nothing) };
    }
}

/// Takes the memory of a process that was killed (`process_mrelease`).
pub(super) fn reap(process: impl AsFd) -> io::Result<()> {
    let fd = process.as_fd().as_raw_fd();
    // SAFETY: the call takes numbers alone.
    match unsafe { libc::syscall(libc::SYS_process_mrelease, fd, 0_u64) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
