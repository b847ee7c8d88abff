//! The calls that affect an address space, its files or its processes, typed.

use super::{strace_words::value, text::unescape};
use crate::file::{FallocateMode, Seals};
use crate::mm::{MapFlags, MlockFlags, MlockallFlags, MremapArgs, MsyncFlags, Prot};

/// A descriptor in the form of `strace -y`: `3</path>`, `3</path>(deleted)`; a closed one is a
/// number alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// The number.
    pub number: i32,
    /// The path of the file; empty for a closed descriptor.
    pub path: String,
    /// True if the name was deleted.
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
        /// Ignored if `flags` make the memory anonymous.
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
    /// `pkey_mprotect` with a key. Only the recording shows the validity of the key.
    PkeyMprotect {
        addr: u64,
        len: u64,
        prot: Prot,
    },
    Mremap(MremapArgs),
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
    /// `prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME)`; without a name the call removes it.
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
        kind: MemfdKind,
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
    /// `fallocate`.
    Fallocate {
        file: Descriptor,
        mode: FallocateMode,
        offset: u64,
        len: u64,
    },
    /// `fcntl(F_ADD_SEALS)`.
    AddSeals {
        file: Descriptor,
        seals: Seals,
    },
    /// `memfd_secret`.
    Secret,
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
    /// A call that no layout shows.
    Other,
}

/// The flags of a `memfd_create`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemfdKind {
    /// `MFD_HUGETLB`.
    pub huge: bool,
    /// `MFD_ALLOW_SEALING`, or a flag that implies it.
    pub sealable: bool,
}

/// The access mode of an open file.
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

/// The result of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Returned {
    /// A number or an address.
    Value(u64),
    /// A descriptor.
    File(Descriptor),
    /// The name of an errno.
    Error(String),
    /// `?`: the call did not return, or was interrupted.
    Never,
}

impl Returned {
    /// Parses the text after `=`.
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
    /// Returns the number of a result that is one.
    pub fn value(&self) -> Option<u64> {
        match self {
            Self::Value(n) => Some(*n),
            Self::File(file) => u64::try_from(file.number).ok(),
            Self::Error(_) | Self::Never => None,
        }
    }
}

impl Descriptor {
    /// Returns true if the descriptor is open.
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
