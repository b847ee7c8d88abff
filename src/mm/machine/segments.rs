//! The segments of System V of a machine (`ipc/shm.c`).

use crate::{
    addr::PAGE_SIZE,
    error::{LimitError, NoMemory, ObjectError, ShmError},
    file::{Host, HugetlbFile, LockedPages, MAX_SIZE, MemoryObject, Shmem},
    frame::HugeSize,
    sync::Mutex,
};
use bitflags::bitflags;
use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
};

/// The key of segments that no key names (`IPC_PRIVATE`).
const PRIVATE: i32 = 0;
/// The most segments of a machine (`SHMMNI`).
const MOST: usize = 4096;

bitflags! {
    /// Flags of `shmget`, with Linux's values; the lowest nine bits of Linux's word, the rights of
    /// other users, are left out.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct ShmGetFlags: u32 {
        /// Make a segment if none has the key.
        const CREAT = 0o1_000;
        /// With `CREAT`: fail if one has it.
        const EXCL = 0o2_000;
        /// Huge pages of a pool ([`HugePoolConfig`](crate::HugePoolConfig)), promised at once.
        const HUGETLB = 0o4_000;
        /// Commit no memory, and promise no huge pages.
        const NORESERVE = 0o10_000;
        /// With `HUGETLB`: pages of 2 MiB, the default.
        const HUGE_2MB = 21 << 26;
        /// With `HUGETLB`: pages of 1 GiB.
        const HUGE_1GB = 30 << 26;
    }
}

impl ShmGetFlags {
    /// Returns the size of the huge pages; `None` without huge pages.
    fn huge_size(self) -> Result<Option<HugeSize>, ShmError> {
        match self.bits() >> 26 {
            _ if !self.contains(Self::HUGETLB) => Ok(None),
            0 | 21 => Ok(Some(HugeSize::Mib2)),
            30 => Ok(Some(HugeSize::Gib1)),
            _ => Err(ShmError::Flags(self.bits())),
        }
    }
}

/// The number of a segment. A machine gives no number twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShmId(pub u32);

/// The state of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShmStat {
    /// Size in bytes.
    pub size: u64,
    /// Number of mappings (`shm_nattch`): a mapping that was split counts as two.
    pub attached: usize,
    /// The segment was removed, and goes with its last mapping.
    pub removed: bool,
}

/// The memory of a segment.
#[derive(Clone, Debug)]
pub(in crate::mm) enum Memory {
    Small(Arc<Shmem>),
    Huge(Arc<HugetlbFile>),
}

/// The memory of a segment that was removed.
#[derive(Debug)]
enum Left {
    Small(Weak<Shmem>),
    Huge(Weak<HugetlbFile>),
}

impl Memory {
    pub(in crate::mm) fn object(self) -> Arc<dyn MemoryObject> {
        match self {
            Self::Small(memory) => memory,
            Self::Huge(memory) => memory,
        }
    }
    fn left(&self) -> Left {
        match self {
            Self::Small(memory) => Left::Small(Arc::downgrade(memory)),
            Self::Huge(memory) => Left::Huge(Arc::downgrade(memory)),
        }
    }
}

/// A segment.
#[derive(Debug)]
struct Segment {
    /// The size that was asked for, in bytes.
    size: u64,
    state: State,
}

/// One that was removed lives as long as its mappings.
#[derive(Debug)]
enum State {
    Present { key: i32, memory: Memory },
    Removed(Left),
}

impl Segment {
    fn memory(&self) -> Option<Memory> {
        match &self.state {
            State::Present { memory, .. } => Some(memory.clone()),
            State::Removed(Left::Small(memory)) => memory.upgrade().map(Memory::Small),
            State::Removed(Left::Huge(memory)) => memory.upgrade().map(Memory::Huge),
        }
    }
    fn has_key(&self, wanted: i32) -> bool {
        wanted != PRIVATE && matches!(self.state, State::Present { key, .. } if key == wanted)
    }
}

/// All segments of a machine.
#[derive(Debug, Default)]
pub(in crate::mm) struct Segments {
    table: Mutex<Table>,
    /// The pages of the segments that are locked.
    pub(in crate::mm) locked: Arc<LockedPages>,
}

#[derive(Debug, Default)]
struct Table {
    by_id: BTreeMap<ShmId, Segment>,
    next: u32,
}

impl Segments {
    /// Returns the memory of a segment.
    pub(in crate::mm) fn get(&self, id: ShmId) -> Result<Memory, ShmError> {
        let table = self.table.lock();
        let memory = table.by_id.get(&id).and_then(Segment::memory);
        memory.ok_or(ShmError::NoSegment(id.0))
    }
    /// Returns the segment of a key, or makes one (`ipcget`).
    pub(in crate::mm) fn get_or_make(
        &self,
        host: &Host,
        (key, size): (i32, u64),
        flags: ShmGetFlags,
    ) -> Result<ShmId, ShmError> {
        let mut table = self.table.lock();
        // Segments that were removed, and whose last mapping is gone.
        table.by_id.retain(|_, segment| segment.memory().is_some());
        let found = table.by_id.iter().find(|(_, s)| s.has_key(key));
        if let Some((&id, segment)) = found {
            if flags.contains(ShmGetFlags::CREAT | ShmGetFlags::EXCL) {
                return Err(ShmError::Exists(key));
            }
            return if segment.size < size {
                Err(ShmError::Size(size))
            } else {
                Ok(id)
            };
        }
        if key != PRIVATE && !flags.contains(ShmGetFlags::CREAT) {
            return Err(ShmError::NoKey(key));
        }
        if size == 0 || size > MAX_SIZE {
            return Err(ShmError::Size(size));
        }
        if table.by_id.len() >= MOST {
            return Err(ShmError::TooMany(table.by_id.len()));
        }
        let memory = new_memory(host, (key, size), flags)?;
        let id = ShmId(table.next);
        table.next += 1;
        let state = State::Present { key, memory };
        table.by_id.insert(id, Segment { size, state });
        Ok(id)
    }
    /// Removes a segment.
    pub(in crate::mm) fn remove(&self, id: ShmId) -> Result<(), ShmError> {
        let memory = self.get(id)?;
        let removed = State::Removed(memory.left());
        let mut table = self.table.lock();
        let segment = table.by_id.get_mut(&id);
        let before = segment.map(|segment| std::mem::replace(&mut segment.state, removed));
        // Freed without the lock of the table, if nothing maps it.
        drop(table);
        drop((before, memory));
        Ok(())
    }
    /// Returns the state of a segment.
    pub(in crate::mm) fn stat(&self, id: ShmId) -> Result<ShmStat, ShmError> {
        let attached = self.get(id)?.object().mapping().vmas();
        let table = self.table.lock();
        let segment = table.by_id.get(&id).ok_or(ShmError::NoSegment(id.0))?;
        Ok(ShmStat {
            size: segment.size,
            attached,
            removed: matches!(segment.state, State::Removed(_)),
        })
    }
}

/// Makes the memory of a segment, and commits it, or promises its huge pages (`newseg`).
fn new_memory(
    host: &Host,
    (key, size): (i32, u64),
    flags: ShmGetFlags,
) -> Result<Memory, ShmError> {
    let reserves = !flags.contains(ShmGetFlags::NORESERVE);
    let name = format!("/SYSV{key:08x} (deleted)");
    if let Some(huge) = flags.huge_size()? {
        let whole = size.next_multiple_of(huge.pages() * PAGE_SIZE);
        let made = HugetlbFile::segment(host, &name, (whole, huge), reserves);
        return Ok(Memory::Huge(made.map_err(|why| match why {
            ObjectError::NoMemory(NoMemory::Object) => NoMemory::Object.into(),
            _ => ShmError::NoHugePages(size),
        })?));
    }
    let pages = if reserves {
        size.div_ceil(PAGE_SIZE)
    } else {
        0
    };
    if !host.commit.charge(pages) {
        return Err(LimitError::Commit { pages }.into());
    }
    let made = Shmem::segment(host, &name, size, pages);
    let made = made.inspect_err(|_| host.commit.uncharge(pages))?;
    Ok(Memory::Small(made))
}
