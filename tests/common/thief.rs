//! What a process that keeps to no protocol can do with the memory that it was sent: every
//! descriptor of it is found, opened anew, read, written, and left to children.
#![allow(unreachable_pub, dead_code)] // Each test uses its part.

use memmap2::MmapRaw;
use rustix::fs::{Mode, OFlags};
use std::{
    fs::{self, File},
    os::{fd::OwnedFd, unix::fs::FileExt},
    path::PathBuf,
};

/// The paths of all descriptors of this process that are memory of an owner.
fn memories() -> Vec<PathBuf> {
    let all = fs::read_dir("/proc/self/fd").unwrap();
    all.map(|fd| fd.unwrap().path())
        .filter(|path| {
            fs::read_link(path).is_ok_and(|to| to.to_string_lossy().starts_with("/memfd:emmu"))
        })
        .collect()
}

/// How often these eight bytes are found.
pub fn loot(what: u64) -> usize {
    let mut found = 0;
    for path in memories() {
        let bytes = fs::read(path).unwrap();
        let words = bytes.chunks_exact(8);
        found += words.filter(|word| **word == what.to_le_bytes()).count();
    }
    found
}

/// Fills everything with a byte, and maps it for writing; how many pages could be written, and how
/// many pieces mapped.
pub fn smash(byte: u8) -> (u64, usize) {
    let (mut written, mut mapped) = (0, 0);
    for path in memories() {
        // For writing whatever the descriptor was sent for.
        let Ok(file) = File::options().read(true).write(true).open(path) else {
            continue;
        };
        mapped += usize::from(MmapRaw::map_raw(&file).is_ok());
        for page in 0..file.metadata().unwrap().len() / 4096 {
            let done = file.write_all_at(&[byte; 4096], page * 4096);
            written += u64::from(done.is_ok());
        }
    }
    (written, mapped)
}

/// Descriptors of all memory that a child gets as well.
pub fn to_be_left() -> Vec<OwnedFd> {
    let open = |path: PathBuf| {
        let opened = rustix::fs::open(&path, OFlags::RDWR, Mode::empty());
        opened.or_else(|_| rustix::fs::open(&path, OFlags::RDONLY, Mode::empty()))
    };
    memories().into_iter().map(|p| open(p).unwrap()).collect()
}
