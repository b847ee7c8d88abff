//! Files, shared memory and descriptors of recorded processes.

use super::{
    call::{Descriptor, OpenAccess},
    maps::Row,
};
use crate::{
    error::ObjectError,
    file::{DiskFile, File, FileMode, MAX_SIZE, MemStore, MemoryObject, Shmem},
    mm::Machine,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// The size of what nobody cut: a recording does not say how long a file is, so every page of it is there.
const UNKNOWN: u64 = MAX_SIZE;

/// What `/proc/PID/maps` adds to a name that is gone.
pub(super) const DELETED: &str = " (deleted)";

/// Descriptors of one process, or of several that share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Descriptors(BTreeMap<i32, (String, Arc<File>)>);

impl Descriptors {
    pub(super) fn insert(&mut self, to: &Descriptor, file: Arc<File>) {
        self.0.insert(to.number, (to.path.clone(), file));
    }
    pub(super) fn remove(&mut self, file: &Descriptor) {
        self.0.remove(&file.number);
    }
    /// The open file, if this table was told of it: descriptors also come by ways that no call shows.
    pub(super) fn get(&self, file: &Descriptor) -> Option<&Arc<File>> {
        let (path, open) = self.0.get(&file.number)?;
        (*path == file.path).then_some(open)
    }
}

/// The objects of a recording, by name.
#[derive(Debug)]
pub(super) struct Objects {
    machine: Arc<Machine>,
    named: BTreeMap<String, Arc<dyn MemoryObject>>,
    /// Paths with no disk behind.
    in_memory: BTreeSet<String>,
    segments: BTreeMap<u64, (Arc<dyn MemoryObject>, u64)>,
}

impl Objects {
    /// `rows`: every layout of the recording; they tell what lies on a disk.
    pub(super) fn new<'r>(machine: &Arc<Machine>, rows: impl Iterator<Item = &'r Row>) -> Self {
        let in_memory = rows.filter(|r| r.device == 0 && r.path.starts_with('/'));
        Self {
            machine: Arc::clone(machine),
            named: BTreeMap::new(),
            in_memory: in_memory
                .map(|r| r.path.trim_end_matches(DELETED).to_owned())
                .collect(),
            segments: BTreeMap::new(),
        }
    }

    /// The object of that name, made when it is first met.
    pub(super) fn named(&mut self, name: &str) -> Result<Arc<dyn MemoryObject>, ObjectError> {
        if let Some(object) = self.named.get(name) {
            return Ok(Arc::clone(object));
        }
        let object = self.make(name)?;
        self.named.insert(name.to_owned(), Arc::clone(&object));
        Ok(object)
    }
    fn make(&self, name: &str) -> Result<Arc<dyn MemoryObject>, ObjectError> {
        let host = self.machine.host();
        let path = name.trim_end_matches(DELETED);
        let in_memory = self.in_memory.contains(path)
            || ["/dev/shm/", "/memfd:"].iter().any(|p| path.starts_with(p));
        Ok(if in_memory {
            Shmem::new(host, name, UNKNOWN, 0)?
        } else {
            DiskFile::new(host, name, UNKNOWN, Box::<MemStore>::default())?
        })
    }

    /// A file just opened, as the result of the call names it.
    pub(super) fn open(
        &mut self,
        to: &Descriptor,
        access: OpenAccess,
    ) -> Result<Arc<File>, ObjectError> {
        let mode = match access {
            OpenAccess::Read => FileMode::ReadOnly,
            OpenAccess::Write => FileMode::WriteOnly,
            OpenAccess::Both => FileMode::ReadWrite,
        };
        Ok(File::open(self.named(&shown(to))?, mode))
    }
    /// `memfd_create`: a new object however often the name was used. Nothing says how much is written to it.
    pub(super) fn memfd(&self, name: &str) -> Result<Arc<File>, ObjectError> {
        let object = Shmem::memfd(self.machine.host(), name, UNKNOWN)?;
        Ok(File::open(object, FileMode::ReadWrite))
    }

    /// `shmget`, which returned `id`.
    pub(super) fn add_segment(&mut self, id: u64, key: u64, size: u64) -> Result<(), ObjectError> {
        if self.segments.contains_key(&id) {
            return Ok(());
        }
        let key = key & u64::from(u32::MAX);
        let name = format!("/SYSV{key:08x}{DELETED}");
        let object = Shmem::new(self.machine.host(), &name, size, 0)?;
        self.segments.insert(id, (object, size));
        Ok(())
    }
    /// An open file of segment `id`, and its size in bytes: each `shmat` has one of its own.
    pub(super) fn attach(&self, id: u64, mode: FileMode) -> Option<(Arc<File>, u64)> {
        let (object, size) = self.segments.get(&id)?;
        Some((File::open(Arc::clone(object), mode), *size))
    }
}

/// The name that `/proc/PID/maps` has for what a descriptor leads to.
fn shown(file: &Descriptor) -> String {
    let gone = if file.deleted { DELETED } else { "" };
    format!("{}{gone}", file.path)
}
