//! Frames in memory that other processes map: a file without a name (`memfd_create`), sealed in its size.
//!
//! Every process sees every store of the others at once, byte by byte; who may use which frame when is a matter of the
//! protocol above. Bytes are accessed as atomics, since others access them without any lock of this process.
#![allow(unsafe_code)]

use super::{
    PhysMem,
    contents::{self, Contents, LEN, MemConfig},
};
use crate::{
    addr::Pfn,
    sync::{AtomicU8, Mutex, Ordering::Relaxed},
};
use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{FallocateFlags, MemfdFlags, Mode, OFlags, SealFlags};
use std::{
    fmt,
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

/// Memory that several processes of the host have mapped: all frames of a machine, the zero page first.
pub struct SharedMemory {
    file: File,
    map: MmapRaw,
    writable: bool,
}

/// What is known of a frame's bytes: whether anything may have been written. The lock orders accesses of this process.
pub(super) type Made = Mutex<bool>;

/// The size cannot change, and nobody can allow it again.
const SEALS: SealFlags = SealFlags::SHRINK
    .union(SealFlags::GROW)
    .union(SealFlags::SEAL);

impl SharedMemory {
    /// The memory that a machine of this kind needs, if it is to be shared.
    pub(super) fn of(config: MemConfig) -> io::Result<Option<Self>> {
        if config.contents != Contents::Shared {
            return Ok(None);
        }
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = File::from(rustix::fs::memfd_create(c"emmu", flags)?);
        file.set_len((u64::from(config.frames) + 1) * LEN as u64)?;
        rustix::fs::fcntl_add_seals(&file, SEALS)?;
        Self::map(file, true).map(Some)
    }
    /// Maps what another process made.
    ///
    /// # Errors
    ///
    /// What the host said; `InvalidData` if the size of the file can change, which would end whoever looks at it.
    pub fn open(fd: OwnedFd, writable: bool) -> io::Result<Self> {
        let file = File::from(fd);
        if !rustix::fs::fcntl_get_seals(&file)?.contains(SealFlags::SHRINK) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Self::map(file, writable)
    }
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
    /// The descriptor, to be passed on.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
    /// A descriptor of the same memory that only allows reading.
    ///
    /// # Errors
    ///
    /// What the host said.
    pub fn read_only_fd(&self) -> io::Result<OwnedFd> {
        let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        Ok(rustix::fs::open(path, flags, Mode::empty())?)
    }
    /// Whether it may be written here.
    pub fn is_writable(&self) -> bool {
        self.writable
    }
    /// Bytes.
    pub fn len(&self) -> usize {
        self.map.len()
    }
    /// Whether there is none, which never is: the zero page is always there.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    fn bytes(&self) -> &[AtomicU8] {
        // SAFETY: the mapping is that long and lives as long as `self`; its size is sealed, so that no access can fault.
        // All processes that keep to the protocol access it as atomic bytes, and any value is one of a byte.
        unsafe { std::slice::from_raw_parts(self.map.as_mut_ptr().cast(), self.map.len()) }
    }
    fn part(&self, at: usize, len: usize) -> &[AtomicU8] {
        &self.bytes()[at..][..len]
    }
    /// Loads bytes from `at` on.
    ///
    /// # Panics
    ///
    /// If they are not all in the memory.
    pub fn read(&self, at: usize, out: &mut [u8]) {
        let from = self.part(at, out.len());
        out.iter_mut()
            .zip(from)
            .for_each(|(o, b)| *o = b.load(Relaxed));
    }
    /// Stores bytes from `at` on.
    ///
    /// # Panics
    ///
    /// If they are not all in the memory, or it may only be read.
    pub fn write(&self, at: usize, bytes: &[u8]) {
        assert!(self.writable, "memory that may only be read is written");
        let to = self.part(at, bytes.len());
        to.iter()
            .zip(bytes)
            .for_each(|(b, new)| b.store(*new, Relaxed));
    }
    /// Gives a page back to the host; it reads as zero.
    fn punch(&self, at: usize) {
        let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if rustix::fs::fallocate(&self.file, how, at as u64, LEN as u64).is_err() {
            self.part(at, LEN).iter().for_each(|b| b.store(0, Relaxed));
        }
    }
    pub(super) fn page<'m>(&'m self, pfn: Pfn, made: &'m Made) -> contents::Page<'m> {
        contents::Page::Shared(Page {
            memory: self,
            at: pfn.0 as usize * LEN,
            made,
        })
    }
}

/// The bytes of one frame.
#[derive(Clone, Copy)]
pub(super) struct Page<'m> {
    memory: &'m SharedMemory,
    at: usize,
    made: &'m Made,
}

impl Page<'_> {
    fn bytes(&self) -> &[AtomicU8] {
        self.memory.part(self.at, LEN)
    }
    pub(super) fn read(self, offset: usize, out: &mut [u8]) {
        assert!(offset + out.len() <= LEN, "a read leaves its page");
        let made = self.made.lock();
        if *made {
            self.memory.read(self.at + offset, out);
        } else {
            out.fill(0);
        }
    }
    pub(super) fn write(self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= LEN, "a write leaves its page");
        let mut made = self.made.lock();
        *made = true;
        self.memory.write(self.at + offset, bytes);
    }
    pub(super) fn copy_from(self, other: Self) {
        let mut copy = [0; LEN];
        other.read(0, &mut copy);
        // One lock at a time.
        let from = *other.made.lock();
        let to = *self.made.lock();
        if from || to {
            self.write(0, &copy);
        }
    }
    pub(super) fn equals(self, other: Self) -> bool {
        let (mut a, mut b) = ([0; LEN], [0; LEN]);
        self.read(0, &mut a);
        other.read(0, &mut b);
        a == b
    }
    pub(super) fn is_zero(self) -> bool {
        let made = self.made.lock();
        !*made || self.bytes().iter().all(|b| b.load(Relaxed) == 0)
    }
    #[cfg(test)]
    pub(super) fn is_made(self) -> bool {
        *self.made.lock()
    }
    pub(super) fn clear(self) {
        let mut made = self.made.lock();
        if std::mem::take(&mut *made) {
            self.memory.punch(self.at);
        }
    }
}

impl PhysMem {
    /// The memory behind the frames, if it is [shared](Contents::Shared).
    pub fn shared(&self) -> Option<&SharedMemory> {
        self.shared.as_deref()
    }
    /// Where a frame lies in the shared memory, in bytes, for another process that may `write` it from now on.
    pub(crate) fn lend(&self, pfn: Pfn, write: bool) -> Option<u64> {
        let pfn = if pfn.is_zero() { self.zero_pfn() } else { pfn };
        let contents::Page::Shared(page) = self.page(pfn)? else {
            return None;
        };
        if write {
            *page.made.lock() = true;
        }
        Some(page.at as u64)
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
    use super::super::{Contents, MemConfig, PhysMem, SharedMemory};

    #[test]
    fn another_mapping_sees_the_frames_and_a_retired_one_is_zero() {
        let mem = PhysMem::new(MemConfig {
            frames: 64,
            contents: Contents::Shared,
            swap: 0,
        });
        let shared = mem.shared().unwrap();
        let both = SharedMemory::open(shared.fd().try_clone_to_owned().unwrap(), true).unwrap();
        let looking = SharedMemory::open(shared.read_only_fd().unwrap(), false).unwrap();
        let (a, b) = (mem.alloc().unwrap(), mem.alloc().unwrap());
        mem.write(a.pfn(), 7, &[1, 2]);
        let at = usize::try_from(mem.lend(b.pfn(), true).unwrap()).unwrap();
        both.write(at + 7, &[1, 2]);
        assert!(mem.equal(a.pfn(), b.pfn()));
        mem.copy(mem.zero_pfn(), a.pfn());
        assert!(mem.is_unused(a.pfn()) && !mem.is_unused(b.pfn()));
        let mut seen = [0; 2];
        looking.read(at + 7, &mut seen);
        assert_eq!(seen, [1, 2]);
        drop(b);
        looking.read(at + 7, &mut seen);
        assert_eq!(seen, [0, 0]);
        assert!(shared.file.set_len(0).is_err(), "the size is sealed");
    }
}
