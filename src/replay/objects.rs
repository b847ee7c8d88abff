//! The files of a script, made and filled.

use super::{
    ground::OpenMode,
    limits::met,
    script::{FileKind, FileSpec, Script},
};
use crate::{
    addr::PAGE_SIZE,
    ctx::CallCx,
    error::ObjectError,
    file::{DiskFile, File, FileMode, HugetlbFile, MemStore, MemoryObject, Shmem, XipFile},
    frame::HugeSize,
    mm::Machine,
};
use std::{collections::BTreeMap, sync::Arc};

/// Opens the files of a script, filled as its header says. The error names the limit that a file
/// exceeds.
pub(super) fn open(
    cx: &mut CallCx<'_>,
    machine: &Arc<Machine>,
    script: &Script,
) -> Result<BTreeMap<String, Arc<File>>, String> {
    let mut files = BTreeMap::new();
    let before = machine.mem().refused();
    for (name, about) in &script.header.files {
        let file = filled(cx, machine, name, about).map_err(|why| {
            met(machine, before).unwrap_or_else(|| format!("header: file {name:?}: {why}"))
        })?;
        files.insert(name.clone(), file);
    }
    for (name, (file, mode)) in &script.header.opens {
        let object = Arc::clone(files[file].object());
        let file = match mode {
            OpenMode::Direct => File::open_direct(object, FileMode::ReadWrite),
            mode => File::open(object, (*mode).into()),
        };
        files.insert(name.clone(), file);
    }
    Ok(files)
}

fn filled(
    cx: &mut CallCx<'_>,
    machine: &Arc<Machine>,
    name: &str,
    about: &FileSpec,
) -> Result<Arc<File>, ObjectError> {
    let (host, gone) = (machine.host(), format!("/{name} (deleted)"));
    let object: Arc<dyn MemoryObject> = match about.kind {
        FileKind::Memfd => Shmem::memfd(host, name, about.size)?,
        FileKind::Sealable => Shmem::sealable(host, name, about.size)?,
        kind @ (FileKind::Shm | FileKind::ShmWithinSize | FileKind::ShmAdvise) => {
            Shmem::tmpfs(host, &gone, about.size, kind.policy())?
        }
        FileKind::Disk => DiskFile::new(host, &gone, about.size, Box::<MemStore>::default())?,
        FileKind::Xip => XipFile::new(host, &gone, about.size)?,
        FileKind::Hugetlb => HugetlbFile::memfd(host, name, about.size, HugeSize::Mib2)?,
    };
    let file = File::open(object, FileMode::ReadWrite);
    if about.kind == FileKind::Hugetlb {
        return Ok(file); // No call writes to it.
    }
    for page in 0..about.size.div_ceil(PAGE_SIZE) {
        let byte = u8::try_from(page % 200 + 1).expect("at most 200");
        file.write_at(cx.reborrow(), page * PAGE_SIZE, &[byte])?;
    }
    Ok(file)
}
