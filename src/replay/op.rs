//! One recorded operation, typed. Writing an operation that was read gives equal JSON.

use super::{
    hex::Hex,
    wire_words::{advice, hex, map_flags, mremap_flags, msync_flags, nullable, prot},
};
use crate::{
    addr::PAGE_SIZE,
    mm::{Advice, MapFlags, MremapFlags, MsyncFlags, Prot},
};
use serde::{Deserialize, Serialize};

/// An operation and its arguments, as the process passed them: no argument has been checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
#[allow(
    missing_docs,
    reason = "the fields are the arguments of the system call of that name"
)]
pub enum Op {
    /// `mmap`; anonymous without a file.
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
    /// `msync`; without flags `MS_SYNC`.
    Msync {
        #[serde(with = "hex")]
        addr: u64,
        len: u64,
        #[serde(
            with = "msync_flags",
            default = "msync_flags::usual",
            skip_serializing_if = "msync_flags::are_usual"
        )]
        flags: MsyncFlags,
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
    /// A load of one byte.
    Load {
        #[serde(with = "hex")]
        addr: u64,
    },
    /// A store of one byte.
    Store {
        #[serde(with = "hex")]
        addr: u64,
        byte: u8,
    },
    /// A fork; `child` is the number of the new process.
    Fork { child: u32 },
    /// An exit of the process.
    Exit {},
    /// `ftruncate`.
    Ftruncate { file: String, len: u64 },
    /// `fallocate` with `FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE`.
    PunchHole { file: String, off: u64, len: u64 },
    /// A `pwrite` of one byte.
    Pwrite { file: String, off: u64, byte: u8 },
    /// `fsync`.
    Fsync { file: String },
    /// Reclaim of every page that these processes own.
    Reclaim {},
    /// The kernel frees so many frames, if possible. Only scripts of this library have this
    /// operation and the following ones: no kernel offers them.
    ///
    /// In a script the number is `frames`: the key `pages` of a line has the page tables.
    Shrink {
        #[serde(rename = "frames")]
        pages: u64,
    },
    /// Migration of the page to another frame.
    Migrate {
        #[serde(with = "hex")]
        addr: u64,
    },
    /// Private pages of all processes come to share the frame of the first page that they are equal
    /// to.
    Merge {},
    /// `brk`.
    Brk {
        #[serde(with = "hex")]
        addr: u64,
    },
    /// `mlock2`.
    Mlock2 {
        #[serde(with = "hex")]
        addr: u64,
        len: u64,
        flags: u32,
    },
    /// `mlockall`.
    Mlockall { flags: u32 },
    /// `munlockall`.
    Munlockall {},
    /// `mincore`, of at most 64 pages; returns a bit for each, the lowest for the first.
    Mincore {
        #[serde(with = "hex")]
        addr: u64,
        len: u64,
    },
    /// `mseal`.
    Mseal {
        #[serde(with = "hex")]
        addr: u64,
        len: u64,
    },
    /// A new resource limit: so many bytes, or so many more than are in use, or none.
    Rlimit {
        which: Resource,
        #[serde(deserialize_with = "nullable")]
        bytes: Option<u64>,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        over: bool,
    },
    /// The end of the process's `CAP_IPC_LOCK`.
    DropIpcLock {},
    /// `process_vm_readv`: from `remote` of process `target` to `addr`.
    PvmRead {
        #[serde(with = "hex")]
        addr: u64,
        len: u64,
        target: u32,
        #[serde(with = "hex")]
        remote: u64,
    },
    /// `process_vm_writev`: from `addr` to `remote` of process `target`.
    PvmWrite {
        #[serde(with = "hex")]
        addr: u64,
        len: u64,
        target: u32,
        #[serde(with = "hex")]
        remote: u64,
    },
    /// A `pread` of one byte; returns 256 at the end of the file.
    Pread { file: String, off: u64 },
    /// `sync_file_range`.
    SyncFileRange {
        file: String,
        off: u64,
        len: u64,
        flags: u32,
    },
    /// `pread` of a file into memory of the process.
    ReadInto {
        file: String,
        off: u64,
        #[serde(with = "hex")]
        addr: u64,
        len: u64,
    },
    /// `pwrite` to a file from memory of the process.
    WriteFrom {
        file: String,
        off: u64,
        #[serde(with = "hex")]
        addr: u64,
        len: u64,
    },
    /// `process_madvise` of another process; returns the number of advised bytes.
    ProcessMadvise {
        target: u32,
        iov: Vec<(Hex, u64)>,
        #[serde(with = "advice")]
        advice: Advice,
        flags: u32,
    },
    /// `process_madvise` of the process itself.
    SelfProcessMadvise {
        iov: Vec<(Hex, u64)>,
        #[serde(with = "advice")]
        advice: Advice,
    },
    /// `io_uring_register`: a long-term pin on memory, as a buffer that is written to.
    Pin {
        #[serde(with = "hex")]
        addr: u64,
        len: u64,
    },
    /// The end of the pin of the process.
    Unpin {},
    /// `vmsplice` of memory into a new pipe, which keeps references on its pages.
    Vmsplice {
        #[serde(with = "hex")]
        addr: u64,
        len: u64,
    },
    /// The process closes the pipe of its last `vmsplice`; processes that were forked since have it
    /// still.
    Drain {},
    /// A read of one byte from `/proc/PID/mem` of process `target`.
    MemRead {
        #[serde(with = "hex")]
        addr: u64,
        target: u32,
    },
    /// A write of one byte to `/proc/PID/mem` of process `target`.
    MemWrite {
        #[serde(with = "hex")]
        addr: u64,
        target: u32,
        byte: u8,
    },
    /// Process `target` is killed; `process_mrelease` frees its memory before it ends.
    ExitAndReap { target: u32 },
    /// `ksmd` merges equal pages of mergeable memory (mode 1: four scans), or unmerges all merged
    /// memory (mode 2).
    Ksm {
        #[serde(default = "scans")]
        mode: u8,
    },
    /// `prctl`: `PR_SET_MEMORY_MERGE` (67) or `PR_GET_MEMORY_MERGE` (68).
    Prctl {
        option: u32,
        a2: u64,
        #[serde(default, skip_serializing_if = "is_zero")]
        a3: u64,
    },
    /// A new thread with this number; it shares the memory of the process.
    Thread { thread: u32 },
    /// Migration of these pages, each named by a process and an address, one after the other.
    MigrateMany { moves: Vec<(u32, Hex)> },
    /// `MADV_HUGEPAGE` of these ranges of the process, then full scans of `khugepaged`.
    Khugepaged { advise: Vec<(Hex, u64)> },
    /// A write to `/proc/sys/vm/drop_caches`; 2: the shrinkers, which split huge pages of which a
    /// part was given back.
    DropCaches { value: u32 },
    /// `swapoff` of the only swap device.
    Swapoff {},
    /// `swapon` of it.
    Swapon {},
    /// A limit of the memory of all processes, in bytes (`memory.limit_in_bytes`).
    Limit { bytes: u64 },
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn scans() -> u8 {
    1
}

/// The resource of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Resource {
    /// `RLIMIT_AS`.
    As,
    /// `RLIMIT_DATA`.
    Data,
    /// `RLIMIT_STACK`.
    Stack,
    /// `RLIMIT_MEMLOCK`.
    Memlock,
}

/// `PR_SET_MEMORY_MERGE`.
pub(super) const SET_MERGE: u32 = 67;
/// `PR_GET_MEMORY_MERGE`.
pub(super) const GET_MERGE: u32 = 68;

/// Most pages of a `mincore`: the result has a bit for each.
const MOST_BITS: u64 = 64;

/// Pages that a new pipe takes (`PIPE_DEF_BUFFERS`); a writer of more waits.
const PIPE_PAGES: u64 = 16;

impl Op {
    /// Returns an `msync` with `MS_SYNC`.
    pub fn msync(addr: u64, len: u64) -> Self {
        let flags = MsyncFlags::SYNC;
        Self::Msync { addr, len, flags }
    }
    /// Returns the other processes that take part.
    pub(super) fn targets(&self) -> impl Iterator<Item = u32> {
        let (target, moves): (_, &[_]) = match self {
            Self::PvmRead { target, .. }
            | Self::PvmWrite { target, .. }
            | Self::ProcessMadvise { target, .. }
            | Self::MemRead { target, .. }
            | Self::MemWrite { target, .. }
            | Self::ExitAndReap { target } => (Some(*target), &[]),
            Self::MigrateMany { moves } => (None, moves),
            _ => (None, &[]),
        };
        target.into_iter().chain(moves.iter().map(|m| m.0))
    }
    /// Returns the reason if no script can have this operation.
    pub(super) fn refused(&self) -> Option<String> {
        match *self {
            Self::Mincore { len, .. } if len.div_ceil(PAGE_SIZE) > MOST_BITS => {
                Some(format!("mincore of {len} bytes, more than 64 pages"))
            }
            Self::Vmsplice { len, .. } if len > PIPE_PAGES * PAGE_SIZE => {
                Some(format!("vmsplice of {len} bytes, more than a pipe takes"))
            }
            Self::Rlimit { which, over, .. }
                if over && !matches!(which, Resource::As | Resource::Memlock) =>
            {
                Some(format!("{which:?} over what is in use is not known"))
            }
            Self::Prctl { option, .. } if !matches!(option, SET_MERGE | GET_MERGE) => {
                Some(format!("option {option} of prctl"))
            }
            Self::DropCaches { value } if value != 2 => {
                Some(format!("{value} written to drop_caches"))
            }
            Self::Ksm { mode } if !matches!(mode, 1 | 2) => Some(format!("mode {mode} of ksm")),
            _ => None,
        }
    }
    /// Returns the file that the operation names.
    pub fn file(&self) -> Option<&str> {
        match self {
            Self::Mmap { file, .. } => file.as_deref(),
            Self::Ftruncate { file, .. }
            | Self::PunchHole { file, .. }
            | Self::Pwrite { file, .. }
            | Self::Fsync { file }
            | Self::Pread { file, .. }
            | Self::SyncFileRange { file, .. }
            | Self::ReadInto { file, .. }
            | Self::WriteFrom { file, .. } => Some(file),
            _ => None,
        }
    }
    /// Returns true if success returns an address, which scripts write in hexadecimal.
    pub(super) fn returns_address(&self) -> bool {
        matches!(
            self,
            Self::Mmap { .. } | Self::Mremap { .. } | Self::Brk { .. }
        )
    }
}
