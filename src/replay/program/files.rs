//! Files, shared memory and descriptors of recorded processes.

use super::{
    call::{Descriptor, MemfdKind, OpenAccess},
    maps::Row,
};
use crate::{
    addr::PAGE_SIZE,
    error::ObjectError,
    file::{
        DeviceFile, DiskFile, File, FileMode, Host, HugetlbFile, MAX_SIZE, MemStore, MemoryObject,
        SecretMem, Shmem,
    },
    frame::HugeSize,
    mm::Machine,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// The size of a file that no call cut: a recording does not contain the lengths of files, so every
/// page exists.
const UNKNOWN: u64 = MAX_SIZE;

/// The suffix of a deleted name in `/proc/PID/maps`.
pub(super) const DELETED: &str = " (deleted)";

/// The file behind an open descriptor.
#[derive(Clone, Debug)]
pub(super) struct Opened {
    path: String,
    file: Arc<File>,
    /// The file was opened with `O_PATH`: calls that need a file treat the descriptor as closed.
    path_only: bool,
    /// The pages are huge ones of the kernel's pool.
    pub(super) huge: bool,
}

impl Opened {
    fn of(to: &Descriptor, file: Arc<File>) -> Self {
        let path = to.path.clone();
        let (path_only, huge) = (false, false);
        Self {
            path,
            file,
            path_only,
            huge,
        }
    }
    /// Returns the file, for a call that uses its contents.
    pub(super) fn file(&self) -> Option<&Arc<File>> {
        (!self.path_only).then_some(&self.file)
    }
}

/// Descriptors of one process, or of several that share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Descriptors(Arc<BTreeMap<i32, Opened>>);

impl Descriptors {
    /// Returns the number of open descriptors.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
    pub(super) fn insert(&mut self, to: &Descriptor, opened: Opened) {
        Arc::make_mut(&mut self.0).insert(to.number, opened);
    }
    pub(super) fn remove(&mut self, file: &Descriptor) {
        Arc::make_mut(&mut self.0).remove(&file.number);
    }
    /// Returns the open file, if a call showed its opening: descriptors also come by ways that no
    /// call shows.
    pub(super) fn get(&self, file: &Descriptor) -> Option<&Opened> {
        let opened = self.0.get(&file.number)?;
        (opened.path == file.path).then_some(opened)
    }
}

/// A segment of System V.
#[derive(Debug)]
struct Segment {
    key: u64,
    object: Arc<dyn MemoryObject>,
    size: u64,
    huge: bool,
}

/// An open file of a segment: each `shmat` has one of its own.
pub(super) struct Attached {
    pub(super) file: Arc<File>,
    /// Size in bytes.
    pub(super) size: u64,
    pub(super) huge: bool,
}

/// The objects of a recording, by name.
#[derive(Debug)]
pub(super) struct Objects {
    machine: Arc<Machine>,
    named: BTreeMap<String, Arc<dyn MemoryObject>>,
    /// Paths without a disk.
    in_memory: BTreeSet<String>,
    segments: BTreeMap<u64, Segment>,
}

impl Objects {
    /// Returns an empty table. `rows` are the rows of all layouts of the recording; they tell which
    /// files lie on a disk.
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

    /// Returns the object of that name, and makes it at the first use.
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
        if path == "/dev/zero" {
            return Ok(DeviceFile::zero(host));
        }
        Ok(if in_memory {
            Shmem::new(host, name, UNKNOWN, 0)?
        } else {
            DiskFile::new(host, name, UNKNOWN, Box::<MemStore>::default())?
        })
    }

    /// Opens a file, named by the result of the call.
    pub(super) fn open(
        &mut self,
        to: &Descriptor,
        access: OpenAccess,
    ) -> Result<Opened, ObjectError> {
        let mode = match access {
            OpenAccess::Read | OpenAccess::Path => FileMode::ReadOnly,
            OpenAccess::Write => FileMode::WriteOnly,
            OpenAccess::Both => FileMode::ReadWrite,
        };
        let file = File::open(self.named(&shown(to))?, mode);
        let path_only = access == OpenAccess::Path;
        Ok(Opened {
            path_only,
            ..Opened::of(to, file)
        })
    }
    /// `memfd_create`: a new object, even if the name was used before. No recording shows its
    /// contents.
    pub(super) fn memfd(
        &mut self,
        to: &Descriptor,
        name: &str,
        MemfdKind { huge, sealable }: MemfdKind,
    ) -> Result<Opened, ObjectError> {
        let host = self.machine.host();
        let object = match sealable && !huge {
            true => Shmem::sealable(host, name, UNKNOWN)?,
            false => memory(host, &format!("/memfd:{name}{DELETED}"), UNKNOWN, huge)?,
        };
        let file = File::open(object, FileMode::ReadWrite);
        Ok(Opened {
            huge,
            ..Opened::of(to, file)
        })
    }
    /// `memfd_secret`: the memory has no size until a call sets it.
    pub(super) fn secret(&self, to: &Descriptor) -> Result<Opened, ObjectError> {
        let object = SecretMem::new(self.machine.host())?;
        Ok(Opened::of(to, File::open(object, FileMode::ReadWrite)))
    }

    /// Notes that `shmget` returned `id`. An id comes again after the removal of its segment.
    pub(super) fn add_segment(
        &mut self,
        id: u64,
        (key, size): (u64, u64),
        huge: bool,
    ) -> Result<(), ObjectError> {
        const PRIVATE: u64 = 0;
        let key = key & u64::from(u32::MAX);
        let known = self.segments.get(&id);
        if known.is_some_and(|segment| segment.key == key && key != PRIVATE) {
            return Ok(());
        }
        let name = format!("/SYSV{key:08x}{DELETED}");
        let object = memory(self.machine.host(), &name, size, huge)?;
        let segment = Segment {
            key,
            object,
            size,
            huge,
        };
        self.segments.insert(id, segment);
        Ok(())
    }
    /// Returns an open file of segment `id`.
    pub(super) fn attach(&self, id: u64, mode: FileMode) -> Option<Attached> {
        let segment = self.segments.get(&id)?;
        Some(Attached {
            file: File::open(Arc::clone(&segment.object), mode),
            size: segment.size,
            huge: segment.huge,
        })
    }
}

/// Makes an object in memory, of huge pages or of small ones.
fn memory(
    host: &Host,
    name: &str,
    size: u64,
    huge: bool,
) -> Result<Arc<dyn MemoryObject>, ObjectError> {
    const PAGES: HugeSize = HugeSize::Mib2;
    Ok(match huge {
        true => {
            let page = PAGES.pages() * PAGE_SIZE;
            let whole = size.min(MAX_SIZE - page).next_multiple_of(page);
            HugetlbFile::new(host, name, whole, PAGES)?
        }
        false => Shmem::new(host, name, size, 0)?,
    })
}

/// Returns the name that `/proc/PID/maps` has for the file of a descriptor.
fn shown(file: &Descriptor) -> String {
    let gone = if file.deleted { DELETED } else { "" };
    format!("{}{gone}", file.path)
}
