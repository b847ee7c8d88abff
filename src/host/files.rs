//! The files of a plan, as they are when the first step begins.

use super::{family::refused, plan::Plan};
use crate::{
    addr::PAGE_SIZE,
    replay::{FileKind, FileSpec, OpenMode, Outcome, is_fileless},
    sync::IdSource,
};
use rustix::fs::{MemfdFlags, memfd_create};
use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt, OpenOptionsExt},
    },
};

/// `EXT4_SUPER_MAGIC`.
const EXT4: i64 = 0xef53;

/// Returns true for the kinds of files that can be made here.
pub(super) fn is_known(kind: FileKind) -> bool {
    matches!(
        kind,
        FileKind::Memfd | FileKind::Sealable | FileKind::Disk | FileKind::Hugetlb
    )
}

/// Returns true for a name that a layout shows, and by which no other memory goes.
pub(super) fn can_be_named(name: &str) -> bool {
    let is_usual = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    !name.is_empty() && name.chars().all(is_usual) && !is_fileless(name)
}

/// Writes equal bytes from memory that no process of a plan has.
pub(super) fn write(file: &File, (off, len): (u64, u64), byte: u8) -> io::Result<Outcome> {
    let (page, len) = (
        PAGE_SIZE as usize,
        usize::try_from(len).map_err(io::Error::other)?,
    );
    // A direct write takes bytes from whole pages.
    let bytes = vec![byte; len + page];
    let from = bytes.as_ptr().align_offset(page);
    match file.write_at(&bytes[from..from + len], off) {
        Ok(written) => Ok(Outcome::Ret(written as u64)),
        Err(e) => refused(&e),
    }
}

/// Makes the files of a plan, and opens them under their other names.
pub(super) fn open(plan: &Plan) -> io::Result<BTreeMap<String, File>> {
    let mut files = BTreeMap::new();
    for (name, about) in &plan.files {
        files.insert(name.clone(), made(name, about)?);
    }
    for (name, (of, mode)) in &plan.opens {
        let file = files
            .get(of)
            .ok_or(io::Error::from(io::ErrorKind::NotFound))?;
        let again = reopened(file, *mode)?;
        files.insert(name.clone(), again);
    }
    Ok(files)
}

/// Returns a new file with the contents that every script begins with.
fn made(name: &str, about: &FileSpec) -> io::Result<File> {
    let in_memory = |flags| memfd_create(name, flags).map_err(io::Error::from);
    let file = match about.kind {
        FileKind::Disk => on_disk(name)?,
        FileKind::Sealable => File::from(in_memory(MemfdFlags::ALLOW_SEALING)?),
        FileKind::Hugetlb => {
            let flags = MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB;
            let file = File::from(in_memory(flags)?);
            file.set_len(about.size)?;
            return Ok(file);
        }
        _ => File::from(in_memory(MemfdFlags::empty())?),
    };
    file.set_len(about.size)?;
    for page in 0..about.size.div_ceil(PAGE_SIZE) {
        let byte = (page % 200 + 1) as u8;
        file.write_all_at(&[byte], page * PAGE_SIZE)?;
    }
    Ok(file)
}

/// Opens a file once more, in another mode.
fn reopened(file: &File, mode: OpenMode) -> io::Result<File> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let mut how = File::options();
    match mode {
        OpenMode::ReadOnly => how.read(true),
        OpenMode::WriteOnly => how.write(true),
        OpenMode::ReadWrite => how.read(true).write(true),
        OpenMode::Direct => how.read(true).write(true).custom_flags(libc::O_DIRECT),
    };
    how.open(path)
}

/// Returns a file on the file system of temporary files, if that is ext4 with blocks of a page. The
/// file has no name any more, but one after the last `@` in `/proc/PID/maps`.
fn on_disk(name: &str) -> io::Result<File> {
    static NEXT: IdSource = IdSource::starting_at(0);
    let unique = format!("emmu-{}-{}@{name}", std::process::id(), NEXT.next());
    let path = std::env::temp_dir().join(unique);
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)?;
    std::fs::remove_file(&path)?;
    let system = rustix::fs::fstatfs(&file)?;
    if system.f_type != EXT4 || u64::try_from(system.f_bsize) != Ok(PAGE_SIZE) {
        let why = format!("{} is no ext4 with 4-KiB blocks", path.display());
        return Err(io::Error::new(io::ErrorKind::Unsupported, why));
    }
    Ok(file)
}
