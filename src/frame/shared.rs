//! Memory that several processes of the host map: an anonymous file (`memfd_create`) with a sealed
//! size.
//!
//! Every process sees the stores of the others at once, byte by byte. This process accesses the
//! bytes as relaxed atomics: the others access them without any lock of this process, whatever they
//! promise, and a plain access would be a data race.
//! docs/adr/0011-other-processes-share-the-memory.md has the design.
#![allow(unsafe_code)]

use super::pfn::PAGE_BYTES;
use crate::sync::{AtomicU8, Ordering::Relaxed};
use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{MemfdFlags, SealFlags};
use std::{
    fmt,
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

/// A piece of shared memory, mapped in this process.
pub(crate) struct SharedMemory {
    file: File,
    map: MmapRaw,
    writable: bool,
}

/// The size cannot change, and no seal can be added.
const SEALS: SealFlags = SealFlags::SHRINK
    .union(SealFlags::GROW)
    .union(SealFlags::SEAL);

impl SharedMemory {
    /// Creates memory that reads as zero and is writable here.
    ///
    /// Unless `others_write`, no descriptor of the file allows writing, by whatever way a process
    /// came by it: the mapping that is made here is the last writable one (`F_SEAL_FUTURE_WRITE`).
    pub(crate) fn new(pages: u32, others_write: bool) -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = File::from(rustix::fs::memfd_create(c"emmu", flags)?);
        file.set_len(u64::from(pages) * PAGE_BYTES as u64)?;
        let made = Self::map(file, true)?;
        let seals = if others_write {
            SEALS
        } else {
            SEALS | SealFlags::FUTURE_WRITE
        };
        rustix::fs::fcntl_add_seals(&made.file, seals)?;
        Ok(made)
    }
    /// Maps memory that another process made. Fails with `InvalidData` if the size is not sealed:
    /// shrinking it would kill each process that touches the lost part.
    pub(crate) fn open(fd: OwnedFd, writable: bool) -> io::Result<Self> {
        let file = File::from(fd);
        if !rustix::fs::fcntl_get_seals(&file)?.contains(SealFlags::SHRINK) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Self::map(file, writable)
    }
    /// Maps the file, which has its final size.
    fn map(file: File, writable: bool) -> io::Result<Self> {
        let map = if writable {
            MmapRaw::map_raw(&file)?
        } else {
            MmapOptions::new().map_raw_read_only(&file)?
        };
        Ok(Self {
            file,
            map,
            writable,
        })
    }
    /// Returns the descriptor, to be sent to another process.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
    /// Returns true if this process may write to the memory.
    pub(crate) fn is_writable(&self) -> bool {
        self.writable
    }
    /// Returns the length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }
    /// Returns `len` bytes from `at` on.
    fn part(&self, at: usize, len: usize) -> &[AtomicU8] {
        // SAFETY: the mapping is that long and lives as long as `self`. The size is sealed, so no
        // access can fault. This process accesses the memory as atomic bytes alone, and any value
        // that another process leaves there is a valid byte.
        let all: &[AtomicU8] =
            unsafe { std::slice::from_raw_parts(self.map.as_mut_ptr().cast(), self.map.len()) };
        &all[at..][..len]
    }
    /// Loads bytes from offset `at` on.
    ///
    /// # Panics
    ///
    /// If they are not all in the memory.
    pub(crate) fn read(&self, at: usize, out: &mut [u8]) {
        let from = self.part(at, out.len());
        out.iter_mut()
            .zip(from)
            .for_each(|(o, b)| *o = b.load(Relaxed));
    }
    /// Stores bytes from offset `at` on.
    ///
    /// # Panics
    ///
    /// If they are not all in the memory, or the memory is read-only here.
    pub(crate) fn write(&self, at: usize, bytes: &[u8]) {
        assert!(self.writable, "memory that may only be read is written");
        let to = self.part(at, bytes.len());
        to.iter()
            .zip(bytes)
            .for_each(|(b, new)| b.store(*new, Relaxed));
    }
}

impl fmt::Debug for SharedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedMemory")
            .field("bytes", &self.len())
            .field("writable", &self.writable)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::{PAGE_BYTES, SharedMemory};
    use memmap2::MmapRaw;
    use std::{fs, os::fd::AsRawFd};

    fn again(memory: &SharedMemory, writable: bool) -> std::io::Result<SharedMemory> {
        SharedMemory::open(memory.fd().try_clone_to_owned()?, writable)
    }

    #[test]
    fn another_mapping_sees_what_is_written_and_nobody_changes_the_size() {
        let memory = SharedMemory::new(2, true).unwrap();
        let (writes, reads) = (
            again(&memory, true).unwrap(),
            again(&memory, false).unwrap(),
        );
        writes.write(PAGE_BYTES + 7, &[1, 2]);
        let mut seen = [0; 2];
        for at in [&memory, &reads] {
            at.read(PAGE_BYTES + 7, &mut seen);
            assert_eq!(seen, [1, 2]);
        }
        assert!(memory.file.set_len(0).is_err(), "the size is sealed");
        assert!(memory.file.set_len(1 << 20).is_err(), "the size is sealed");
    }

    #[test]
    fn memory_for_readers_is_written_through_no_descriptor() {
        for others_write in [false, true] {
            let memory = SharedMemory::new(1, others_write).unwrap();
            let path = format!("/proc/self/fd/{}", memory.fd().as_raw_fd());
            let opened = fs::File::options().read(true).write(true).open(path);
            // The twin: where others may write, all of this works.
            let mapped = opened.as_ref().is_ok_and(|f| MmapRaw::map_raw(f).is_ok());
            let written = opened.is_ok_and(|f| {
                use std::os::unix::fs::FileExt;
                f.write_at(&[1], 0).is_ok()
            });
            assert_eq!((mapped, written), (others_write, others_write));
            assert_eq!(again(&memory, true).is_ok(), others_write);
            memory.write(0, &[9]);
            let mut seen = [0];
            again(&memory, false).unwrap().read(0, &mut seen);
            assert_eq!(seen, [9]);
        }
    }
}
