//! One recorded operation, typed. Reading and writing one gives the same JSON again.

use super::words::{advice, hex, map_flags, mremap_flags, nullable, prot};
use crate::mm::{Advice, MapFlags, MremapFlags, Prot};
use serde::{Deserialize, Serialize};

/// An operation and its arguments, as the process passed them: nothing here has been checked to make sense.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
#[allow(
    missing_docs,
    reason = "the fields are the arguments of the system call of that name"
)]
pub enum Op {
    /// `mmap`; no file: anonymous.
    Mmap {
        #[serde(with = "hex")]
        addr: u64,
        len: u64,
        #[serde(with = "prot")]
        prot: Prot,
        #[serde(with = "map_flags")]
        flags: MapFlags,
        #[serde(deserialize_with = "nullable")]
        file: Option<String>,
        off: u64,
    },
    /// `munmap`.
    Munmap {
        #[serde(with = "hex")]
        addr: u64,
        len: u64,
    },
    /// `mprotect`.
    Mprotect {
        #[serde(with = "hex")]
        addr: u64,
        len: u64,
        #[serde(with = "prot")]
        prot: Prot,
    },
    /// `mremap`.
    Mremap {
        #[serde(with = "hex")]
        addr: u64,
        old_len: u64,
        new_len: u64,
        #[serde(with = "mremap_flags")]
        flags: MremapFlags,
        #[serde(with = "hex")]
        new_addr: u64,
    },
    /// `remap_file_pages` with protection and flags 0.
    RemapFilePages {
        #[serde(with = "hex")]
        addr: u64,
        len: u64,
        pgoff: u64,
    },
    /// `madvise`.
    Madvise {
        #[serde(with = "hex")]
        addr: u64,
        len: u64,
        #[serde(with = "advice")]
        advice: Advice,
    },
    /// `msync` with `MS_SYNC`.
    Msync {
        #[serde(with = "hex")]
        addr: u64,
        len: u64,
    },
    /// `mlock`.
    Mlock {
        #[serde(with = "hex")]
        addr: u64,
        len: u64,
    },
    /// `munlock`.
    Munlock {
        #[serde(with = "hex")]
        addr: u64,
        len: u64,
    },
    /// One byte is read.
    Load {
        #[serde(with = "hex")]
        addr: u64,
    },
    /// One byte is written.
    Store {
        #[serde(with = "hex")]
        addr: u64,
        byte: u8,
    },
    /// The process forks; `child` is the number that the new process is known by.
    Fork { child: u32 },
    /// The process exits.
    Exit {},
    /// A file is cut or extended.
    Ftruncate { file: String, len: u64 },
    /// `fallocate` with `FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE`.
    PunchHole { file: String, off: u64, len: u64 },
    /// One byte of a file is written.
    Pwrite { file: String, off: u64, byte: u8 },
    /// `fsync`.
    Fsync { file: String },
    /// The kernel reclaims every page that these processes own.
    Reclaim {},
    /// So many frames are freed, if that can be done. Of this library's own scripts, as what follows: no kernel can be asked.
    ///
    /// In a script they are `frames`: the key `pages` of a line has the page tables.
    Shrink {
        #[serde(rename = "frames")]
        pages: u64,
    },
    /// The page moves to another frame.
    Migrate {
        #[serde(with = "hex")]
        addr: u64,
    },
    /// Private pages of all processes come to share the frame of the first of them, where they are equal to it.
    Merge {},
}

impl Op {
    /// The file that the operation names.
    pub fn file(&self) -> Option<&str> {
        match self {
            Self::Mmap { file, .. } => file.as_deref(),
            Self::Ftruncate { file, .. }
            | Self::PunchHole { file, .. }
            | Self::Pwrite { file, .. }
            | Self::Fsync { file } => Some(file),
            _ => None,
        }
    }
    /// Whether success returns an address, which scripts write in hexadecimal.
    pub(super) fn returns_address(&self) -> bool {
        matches!(self, Self::Mmap { .. } | Self::Mremap { .. })
    }
}
