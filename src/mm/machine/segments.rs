//! The segments of System V of a machine (`ipc/shm.c`).

use crate::{
    addr::PAGE_SIZE,
    error::{LimitError, ShmError},
    file::{Host, MAX_SIZE, MemoryObject, Shmem},
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
        /// Commit no memory.
        const NORESERVE = 0o10_000;
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

/// A segment. One that was removed lives as long as its mappings.
#[derive(Debug)]
enum Segment {
    Present { key: i32, memory: Arc<Shmem> },
    Removed(Weak<Shmem>),
}

impl Segment {
    fn memory(&self) -> Option<Arc<Shmem>> {
        match self {
            Self::Present { memory, .. } => Some(Arc::clone(memory)),
            Self::Removed(memory) => memory.upgrade(),
        }
    }
    fn has_key(&self, wanted: i32) -> bool {
        wanted != PRIVATE && matches!(self, Self::Present { key, .. } if *key == wanted)
    }
}

/// All segments of a machine.
#[derive(Debug, Default)]
pub(in crate::mm) struct Segments(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    by_id: BTreeMap<ShmId, Segment>,
    next: u32,
}

impl Segments {
    /// Returns the memory of a segment.
    pub(in crate::mm) fn get(&self, id: ShmId) -> Result<Arc<Shmem>, ShmError> {
        let table = self.0.lock();
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
        let mut table = self.0.lock();
        // Segments that were removed, and whose last mapping is gone.
        table.by_id.retain(|_, segment| segment.memory().is_some());
        let found = table.by_id.iter().find(|(_, s)| s.has_key(key));
        if let Some((&id, segment)) = found {
            if flags.contains(ShmGetFlags::CREAT | ShmGetFlags::EXCL) {
                return Err(ShmError::Exists(key));
            }
            let has = segment.memory().map_or(0, |memory| memory.size());
            return if has < size {
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
        table.by_id.insert(id, Segment::Present { key, memory });
        Ok(id)
    }
    /// Removes a segment.
    pub(in crate::mm) fn remove(&self, id: ShmId) -> Result<(), ShmError> {
        let memory = self.get(id)?;
        let removed = Segment::Removed(Arc::downgrade(&memory));
        let before = self.0.lock().by_id.insert(id, removed);
        // Freed without the lock of the table, if nothing maps it.
        drop((before, memory));
        Ok(())
    }
    /// Returns the state of a segment.
    pub(in crate::mm) fn stat(&self, id: ShmId) -> Result<ShmStat, ShmError> {
        let memory = self.get(id)?;
        let table = self.0.lock();
        Ok(ShmStat {
            size: memory.size(),
            attached: memory.mapping().vmas(),
            removed: matches!(table.by_id.get(&id), Some(Segment::Removed(_))),
        })
    }
}

/// Makes the memory of a segment, and commits it (`newseg`).
fn new_memory(
    host: &Host,
    (key, size): (i32, u64),
    flags: ShmGetFlags,
) -> Result<Arc<Shmem>, ShmError> {
    let pages = match flags.contains(ShmGetFlags::NORESERVE) {
        true => 0,
        false => size.div_ceil(PAGE_SIZE),
    };
    if !host.commit.charge(pages) {
        return Err(LimitError::Commit { pages }.into());
    }
    let name = format!("/SYSV{key:08x} (deleted)");
    let made = Shmem::segment(host, &name, size, pages);
    Ok(made.inspect_err(|_| host.commit.uncharge(pages))?)
}
