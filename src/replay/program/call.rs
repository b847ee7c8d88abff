//! The calls that an address space, its files and its processes feel, typed.

use super::{text::unescape, words::value};
use crate::mm::{MapFlags, MlockFlags, MlockallFlags, MremapFlags, MsyncFlags, Prot};

/// A descriptor as `strace -y` shows it: `3</path>`, `3</path>(deleted)`; one that is not open is a
/// number alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Its number.
    pub number: i32,
    /// What it leads to; nothing: it is not open.
    pub path: String,
    /// Whether that name is gone.
    pub deleted: bool,
}

/// A call and its arguments, as the thread passed them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[allow(
    missing_docs,
    reason = "the fields are the arguments of the system call of that name"
)]
pub enum Call {
    Mmap {
        addr: u64,
        len: u64,
        prot: Prot,
        flags: MapFlags,
        /// Not looked at where `flags` say that the memory is anonymous.
        file: Descriptor,
        offset: u64,
    },
    Munmap {
        addr: u64,
        len: u64,
    },
    /// `mprotect`, and `pkey_mprotect` without a key.
    Mprotect {
        addr: u64,
        len: u64,
        prot: Prot,
    },
    /// `pkey_mprotect` with a key. Whether that was given out, the recording alone knows.
    PkeyMprotect {
        addr: u64,
        len: u64,
        prot: Prot,
    },
    Mremap {
        addr: u64,
        old_len: u64,
        new_len: u64,
        flags: MremapFlags,
        new_addr: u64,
    },
    RemapFilePages {
        addr: u64,
        len: u64,
        prot: Prot,
        pgoff: u64,
        flags: MapFlags,
    },
    Madvise {
        addr: u64,
        len: u64,
        advice: u64,
    },
    /// `mlock`, `mlock2`.
    Mlock {
        addr: u64,
        len: u64,
        flags: MlockFlags,
    },
    Munlock {
        addr: u64,
        len: u64,
    },
    Mlockall {
        flags: MlockallFlags,
    },
    Munlockall,
    Msync {
        addr: u64,
        len: u64,
        flags: MsyncFlags,
    },
    Brk {
        addr: u64,
    },
    /// `prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME)`; no name: it is taken away.
    NameMemory {
        addr: u64,
        len: u64,
        name: Option<String>,
    },
    /// `fork`, `vfork`, `clone`, `clone3`.
    Clone {
        vm: bool,
        thread: bool,
        files: bool,
    },
    Execve,
    /// One thread ends.
    Exit,
    ExitGroup,
    /// `open`, `openat`, `creat`.
    Open {
        access: OpenAccess,
    },
    /// `memfd_create`.
    Memfd {
        name: String,
        /// `MFD_HUGETLB`.
        huge: bool,
    },
    Close {
        file: Descriptor,
    },
    /// `dup`, `dup2`, `dup3`, `fcntl(F_DUPFD)`.
    Dup {
        file: Descriptor,
    },
    Ftruncate {
        file: Descriptor,
        len: u64,
    },
    /// `fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)`.
    PunchHole {
        file: Descriptor,
        offset: u64,
        len: u64,
    },
    Shmget {
        key: u64,
        size: u64,
        /// `SHM_HUGETLB`.
        huge: bool,
    },
    Shmat {
        id: u64,
        addr: u64,
        flags: u64,
    },
    Shmdt {
        addr: u64,
    },
    /// Nothing that a layout shows.
    Other,
}

/// What a file was opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenAccess {
    /// `O_RDONLY`.
    Read,
    /// `O_WRONLY`.
    Write,
    /// `O_RDWR`.
    Both,
    /// `O_PATH`: the file can be named, and nothing else.
    Path,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Returned {
    /// A number or an address.
    Value(u64),
    /// A descriptor.
    File(Descriptor),
    /// The name of an errno.
    Error(String),
    /// `?`: it did not return, or was interrupted.
    Never,
}

impl Returned {
    /// From what stands behind `=`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let first = text.split_whitespace().next().unwrap_or_default();
        if let Some(error) = text.strip_prefix("-1 ") {
            let name = error.split_whitespace().next().unwrap_or_default();
            return Ok(Self::Error(name.to_owned()));
        }
        if first == "?" {
            return Ok(Self::Never);
        }
        if text.contains('<') {
            return Descriptor::parse(text).map(Self::File);
        }
        value(first).map(Self::Value)
    }
    /// The number of a result that is one.
    pub fn value(&self) -> Option<u64> {
        match self {
            Self::Value(n) => Some(*n),
            Self::File(file) => u64::try_from(file.number).ok(),
            Self::Error(_) | Self::Never => None,
        }
    }
}

impl Descriptor {
    /// Whether a file is behind it.
    pub fn is_open(&self) -> bool {
        !self.path.is_empty()
    }
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is not a descriptor such as 3</path>");
        let (number, path) = text.split_once('<').unwrap_or((text, ""));
        let number = number.trim().parse().map_err(|_| bad())?;
        let (path, behind) = path.rsplit_once('>').unwrap_or((path, ""));
        Ok(Self {
            number,
            path: unescape(path),
            deleted: behind.starts_with("(deleted)"),
        })
    }
}
