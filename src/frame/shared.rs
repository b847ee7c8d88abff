//! Memory that several processes of the host map: an anonymous file (`memfd_create`) with a sealed
//! size.
//!
//! Every process sees the stores of the others at once, aligned words of up to 8 bytes whole. This
//! process accesses the bytes as atomics (`atomic_bytes`): the others access them without any lock
//! of this process, whatever they promise, and a plain access would be a data race.
//! docs/adr/0011-other-processes-share-the-memory.md has the design.
#![allow(unsafe_code)]

use super::{atomic_bytes, pfn::PAGE_BYTES, word::WordAccess};
use crate::sync::hardware::AtomicU8;
use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{MemfdFlags, SealFlags};
#[cfg(feature = "remote")]
use std::os::fd::OwnedFd;
#[cfg(feature = "host-mapping")]
use std::ptr::NonNull;
use std::{
    fmt,
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd},
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
    #[cfg(feature = "remote")]
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
    #[cfg(feature = "remote")]
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
    /// Returns the address of the byte at an offset, which lives as long as this value.
    ///
    /// # Panics
    ///
    /// If it is not in the memory.
    #[cfg(feature = "host-mapping")]
    pub(crate) fn address(&self, at: usize) -> NonNull<u8> {
        NonNull::from(&self.part(at, 1)[0]).cast()
    }
    /// Loads bytes from offset `at` on.
    ///
    /// # Panics
    ///
    /// If they are not all in the memory.
    pub(crate) fn read(&self, at: usize, out: &mut [u8]) {
        atomic_bytes::load(self.part(at, out.len()), out);
    }
    /// Stores bytes from offset `at` on.
    ///
    /// # Panics
    ///
    /// If they are not all in the memory, or the memory is read-only here.
    pub(crate) fn write(&self, at: usize, bytes: &[u8]) {
        assert!(self.writable, "memory that may only be read is written");
        atomic_bytes::store(self.part(at, bytes.len()), bytes);
    }
    /// Does an atomic access of the word at offset `at`, and returns what it was before.
    ///
    /// # Panics
    ///
    /// If it is not in the memory or not aligned; if it may store, and the memory is read-only
    /// here.
    pub(crate) fn access(&self, at: usize, access: &WordAccess) -> u64 {
        let may = self.writable || access.is_load();
        assert!(may, "memory that may only be read is written");
        atomic_bytes::access(self.part(at, access.size), access)
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

#[cfg(all(test, feature = "remote"))]
mod tests {
    use super::{super::AtomicOp, PAGE_BYTES, SharedMemory, WordAccess};
    use crate::sync::{AtomicBool, Ordering};
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

    /// A queue of virtio is of no use otherwise: its index would be half of an old and half of a
    /// new one.
    #[test]
    fn another_mapping_sees_no_half_of_an_aligned_store() {
        let memory = SharedMemory::new(1, true).unwrap();
        let peer = again(&memory, false).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|s| {
            s.spawn(|| {
                for n in 0..200_000_u32 {
                    let byte = if n % 2 == 0 { 0xff } else { 0 };
                    memory.write(6, &[byte; 2]);
                    memory.write(8, &[byte; 24]);
                }
                done.store(true, Ordering::Release);
            });
            while !done.load(Ordering::Acquire) {
                let (mut index, mut words) = ([0; 2], [0; 24]);
                peer.read(6, &mut index);
                peer.read(8, &mut words);
                assert_eq!(index[0], index[1], "half of a store");
                for word in words.chunks_exact(8) {
                    assert!(word.iter().all(|b| *b == word[0]), "a part of a store");
                }
            }
        });
    }

    #[test]
    fn an_atomic_access_is_one_for_every_mapping() {
        let memory = SharedMemory::new(1, true).unwrap();
        let peer = again(&memory, true).unwrap();
        let add = WordAccess::new(AtomicOp::Add(1_u32), Ordering::Relaxed);
        std::thread::scope(|s| {
            for side in [&memory, &peer] {
                s.spawn(move || (0..20_000).for_each(|_| _ = side.access(12, &add)));
            }
        });
        let load = WordAccess::new(AtomicOp::<u32>::Load, Ordering::SeqCst);
        assert_eq!(again(&memory, false).unwrap().access(12, &load), 40_000);
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
