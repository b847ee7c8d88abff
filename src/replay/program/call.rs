//! The calls that an address space, its files and its processes feel, typed.

use super::{
    text::{arguments, unescape},
    words::value,
};
use crate::mm::{MapFlags, MlockFlags, MlockallFlags, MremapFlags, MsyncFlags, Prot};

/// A descriptor as `strace -y` shows it: `3</path>`, `3</path>(deleted)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Its number.
    pub number: i32,
    /// What it leads to.
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
        file: Option<Descriptor>,
        offset: u64,
    },
    Munmap {
        addr: u64,
        len: u64,
    },
    /// `mprotect`, `pkey_mprotect`.
    Mprotect {
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
    PunchHole {
        file: Descriptor,
        offset: u64,
        len: u64,
    },
    Shmget {
        key: u64,
        size: u64,
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

/// The arguments of one call, by position.
struct Args<'a>(Vec<&'a str>);

impl Args<'_> {
    fn text(&self, nth: usize) -> Result<&str, String> {
        let missing = || format!("argument {} is missing", nth + 1);
        self.0.get(nth).copied().ok_or_else(missing)
    }
    fn number(&self, nth: usize) -> Result<u64, String> {
        value(self.text(nth)?)
    }
    /// What is not there is 0.
    fn number_or_0(&self, nth: usize) -> Result<u64, String> {
        self.0.get(nth).map_or(Ok(0), |text| value(text))
    }
    fn bits(&self, nth: usize) -> Result<u32, String> {
        let text = self.text(nth)?;
        u32::try_from(value(text)?).map_err(|_| format!("{text:?} has more than 32 bits"))
    }
    fn prot(&self, nth: usize) -> Result<Prot, String> {
        Ok(Prot::from_bits_retain(self.bits(nth)?))
    }
    fn file(&self, nth: usize) -> Result<Descriptor, String> {
        Descriptor::parse(self.text(nth)?)
    }
    fn string(&self, nth: usize) -> Result<Option<String>, String> {
        let text = self.text(nth)?;
        let inside = text.trim_end_matches("...").strip_prefix('"');
        match inside.and_then(|t| t.strip_suffix('"')) {
            Some(inside) => Ok(Some(unescape(inside))),
            None if text == "NULL" => Ok(None),
            None => Err(format!("{text:?} is not a string")),
        }
    }
}

impl Call {
    /// From a name and what stands between the parentheses.
    pub(super) fn parse(name: &str, text: &str) -> Result<Self, String> {
        let args = Args(arguments(text));
        let found = match name {
            "mmap" | "munmap" | "mprotect" | "pkey_mprotect" | "mremap" | "remap_file_pages"
            | "madvise" | "mlock" | "mlock2" | "munlock" | "mlockall" | "munlockall" | "msync"
            | "brk" | "prctl" => Self::of_memory(name, &args),
            "shmget" => Ok(Self::Shmget {
                key: args.number(0)?,
                size: args.number(1)?,
            }),
            "shmat" => Ok(Self::Shmat {
                id: args.number(0)?,
                addr: args.number(1)?,
                flags: args.number(2)?,
            }),
            "shmdt" => Ok(Self::Shmdt {
                addr: args.number(0)?,
            }),
            "fork" | "vfork" | "clone" | "clone3" => Ok(Self::cloned(name, text)),
            "execve" | "execveat" => Ok(Self::Execve),
            "exit" => Ok(Self::Exit),
            "exit_group" => Ok(Self::ExitGroup),
            _ => Self::of_files(name, &args),
        };
        found.map_err(|why| format!("{name}: {why}"))
    }

    fn of_memory(name: &str, args: &Args<'_>) -> Result<Self, String> {
        let range = || Ok::<_, String>((args.number(0)?, args.number(1)?));
        Ok(match name {
            "mmap" => Self::mmap(args)?,
            "mremap" => Self::mremap(args)?,
            "munmap" => range().map(|(addr, len)| Self::Munmap { addr, len })?,
            "mprotect" | "pkey_mprotect" => {
                let ((addr, len), prot) = (range()?, args.prot(2)?);
                Self::Mprotect { addr, len, prot }
            }
            "remap_file_pages" => Self::RemapFilePages {
                addr: args.number(0)?,
                len: args.number(1)?,
                prot: args.prot(2)?,
                pgoff: args.number(3)?,
                flags: MapFlags::from_bits_retain(args.bits(4)?),
            },
            "madvise" => {
                let ((addr, len), advice) = (range()?, args.number(2)?);
                Self::Madvise { addr, len, advice }
            }
            "mlock" | "mlock2" => {
                let flags = if name == "mlock" { 0 } else { args.bits(2)? };
                let (flags, (addr, len)) = (MlockFlags::from_bits_retain(flags), range()?);
                Self::Mlock { addr, len, flags }
            }
            "munlock" => range().map(|(addr, len)| Self::Munlock { addr, len })?,
            "mlockall" => Self::Mlockall {
                flags: MlockallFlags::from_bits_retain(args.bits(0)?),
            },
            "munlockall" => Self::Munlockall,
            "msync" => {
                let flags = MsyncFlags::from_bits_retain(args.bits(2)?);
                range().map(|(addr, len)| Self::Msync { addr, len, flags })?
            }
            "brk" => Self::Brk {
                addr: args.number(0)?,
            },
            _ if args.text(0) == Ok("PR_SET_VMA") => Self::NameMemory {
                addr: args.number(2)?,
                len: args.number(3)?,
                name: args.string(4)?,
            },
            _ => Self::Other,
        })
    }
    fn mmap(args: &Args<'_>) -> Result<Self, String> {
        let file = args.text(4)?;
        Ok(Self::Mmap {
            addr: args.number(0)?,
            len: args.number(1)?,
            prot: args.prot(2)?,
            flags: MapFlags::from_bits_retain(args.bits(3)?),
            file: match file.starts_with('-') {
                true => None,
                false => Some(args.file(4)?),
            },
            offset: args.number(5)?,
        })
    }
    fn mremap(args: &Args<'_>) -> Result<Self, String> {
        Ok(Self::Mremap {
            addr: args.number(0)?,
            old_len: args.number(1)?,
            new_len: args.number(2)?,
            flags: MremapFlags::from_bits_retain(args.bits(3)?),
            new_addr: args.number_or_0(4)?,
        })
    }
    /// The flags of `clone` stand somewhere among its arguments, those of `clone3` in a structure.
    fn cloned(name: &str, text: &str) -> Self {
        let has = |flag: &str| {
            text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .any(|word| word == flag)
        };
        Self::Clone {
            vm: name == "vfork" || has("CLONE_VM"),
            thread: has("CLONE_THREAD"),
            files: has("CLONE_FILES"),
        }
    }
    fn of_files(name: &str, args: &Args<'_>) -> Result<Self, String> {
        Ok(match name {
            "open" | "openat" => Self::Open {
                access: open_access(args.text(if name == "open" { 1 } else { 2 })?),
            },
            "creat" => Self::Open {
                access: OpenAccess::Write,
            },
            "memfd_create" => Self::Memfd {
                name: args.string(0)?.unwrap_or_default(),
            },
            "close" => Self::Close {
                file: args.file(0)?,
            },
            "dup" | "dup2" | "dup3" => Self::Dup {
                file: args.file(0)?,
            },
            "fcntl" if args.text(1).is_ok_and(|c| c.starts_with("F_DUPFD")) => Self::Dup {
                file: args.file(0)?,
            },
            "ftruncate" => Self::Ftruncate {
                file: args.file(0)?,
                len: args.number(1)?,
            },
            "fallocate" if args.text(1)?.contains("FALLOC_FL_PUNCH_HOLE") => Self::PunchHole {
                file: args.file(0)?,
                offset: args.number(2)?,
                len: args.number(3)?,
            },
            _ => Self::Other,
        })
    }
}

fn open_access(flags: &str) -> OpenAccess {
    let has = |flag| flags.split('|').any(|word| word == flag);
    if has("O_RDWR") {
        OpenAccess::Both
    } else if has("O_WRONLY") {
        OpenAccess::Write
    } else {
        OpenAccess::Read
    }
}
