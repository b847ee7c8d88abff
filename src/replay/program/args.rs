//! The parser of calls: the name, and the text between the parentheses.
//!
//! An invalid pointer appears as a number where a string or a structure should be; such a call can
//! only have failed. A flag word is as wide as the kernel's argument: bits that the kernel ignores
//! are dropped, and bits beyond this library's flags become one unknown bit.

use super::{
    call::{Call, Descriptor, MemfdKind, OpenAccess},
    strace_words::value,
    text::{arguments, unescape},
};
use crate::file::{FallocateMode, Seals};
use crate::mm::{MapFlags, MlockFlags, MlockallFlags, MremapArgs, MremapFlags, MsyncFlags, Prot};

/// The target of a pointer to characters.
enum Text {
    Is(String),
    Null,
    /// The pointer was invalid.
    Nowhere,
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
    /// Returns the argument; 0 if it is missing.
    fn number_or_0(&self, nth: usize) -> Result<u64, String> {
        self.0.get(nth).map_or(Ok(0), |text| value(text))
    }
    /// An `int`: the kernel takes the lower half of the register.
    fn int(&self, nth: usize) -> Result<u32, String> {
        let bits = self.number(nth)? & u64::from(u32::MAX);
        Ok(u32::try_from(bits).unwrap_or_default())
    }
    /// A `long` of which every bit counts: bits that do not fit become one unknown bit.
    fn long(&self, nth: usize) -> Result<u32, String> {
        const UNKNOWN: u32 = 1 << 31;
        let above = self.number(nth)? >> 32 != 0;
        Ok(self.int(nth)? | if above { UNKNOWN } else { 0 })
    }
    /// Returns true if that word is among the flags.
    fn has(&self, nth: usize, flag: &str) -> Result<bool, String> {
        Ok(self.text(nth)?.split('|').any(|word| word == flag))
    }
    fn file(&self, nth: usize) -> Result<Descriptor, String> {
        Descriptor::parse(self.text(nth)?)
    }
    fn string(&self, nth: usize) -> Result<Text, String> {
        let text = self.text(nth)?;
        let inside = text.trim_end_matches("...").strip_prefix('"');
        match inside.and_then(|t| t.strip_suffix('"')) {
            Some(inside) => Ok(Text::Is(unescape(inside))),
            None if text == "NULL" => Ok(Text::Null),
            None => value(text)
                .map(|_| Text::Nowhere)
                .map_err(|_| format!("{text:?} is neither a string nor a pointer")),
        }
    }
}

impl Call {
    /// Parses a call from its name and the text between the parentheses.
    pub(super) fn parse(name: &str, text: &str) -> Result<Self, String> {
        let args = Args(arguments(text));
        let found = match name {
            "mmap" | "munmap" | "mprotect" | "pkey_mprotect" | "mremap" | "remap_file_pages"
            | "madvise" | "mlock" | "mlock2" | "munlock" | "mlockall" | "munlockall" | "msync"
            | "brk" | "prctl" => Self::of_memory(name, &args),
            "shmget" => Ok(Self::Shmget {
                key: args.number(0)?,
                size: args.number(1)?,
                huge: args.has(2, "SHM_HUGETLB")?,
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
            "mprotect" | "pkey_mprotect" => Self::mprotect(name, args)?,
            "remap_file_pages" => Self::RemapFilePages {
                addr: args.number(0)?,
                len: args.number(1)?,
                prot: Prot::from_bits_retain(args.long(2)?),
                pgoff: args.number(3)?,
                flags: MapFlags::from_bits_retain(args.int(4)?),
            },
            "madvise" => {
                let ((addr, len), advice) = (range()?, args.int(2)?.into());
                Self::Madvise { addr, len, advice }
            }
            "mlock" | "mlock2" => {
                let flags = if name == "mlock" { 0 } else { args.int(2)? };
                let (flags, (addr, len)) = (MlockFlags::from_bits_retain(flags), range()?);
                Self::Mlock { addr, len, flags }
            }
            "munlock" => range().map(|(addr, len)| Self::Munlock { addr, len })?,
            "mlockall" => Self::Mlockall {
                flags: MlockallFlags::from_bits_retain(args.int(0)?),
            },
            "munlockall" => Self::Munlockall,
            "msync" => {
                let flags = MsyncFlags::from_bits_retain(args.int(2)?);
                range().map(|(addr, len)| Self::Msync { addr, len, flags })?
            }
            "brk" => Self::Brk {
                addr: args.number(0)?,
            },
            _ if args.text(0)? == "PR_SET_VMA" => Self::name_memory(args)?,
            _ => Self::Other,
        })
    }
    fn mprotect(name: &str, args: &Args<'_>) -> Result<Self, String> {
        let (addr, len) = (args.number(0)?, args.number(1)?);
        let prot = Prot::from_bits_retain(args.long(2)?);
        // Without a key the call is `mprotect`.
        let keyed = name == "pkey_mprotect" && args.int(3)? != u32::MAX;
        Ok(match keyed {
            true => Self::PkeyMprotect { addr, len, prot },
            false => Self::Mprotect { addr, len, prot },
        })
    }
    /// `prctl(PR_SET_VMA, …)`.
    fn name_memory(args: &Args<'_>) -> Result<Self, String> {
        if args.text(1)? != "PR_SET_VMA_ANON_NAME" {
            return Ok(Self::Other);
        }
        let name = match args.string(4)? {
            Text::Is(name) => Some(name),
            Text::Null => None,
            Text::Nowhere => return Ok(Self::Other),
        };
        let (addr, len) = (args.number(2)?, args.number(3)?);
        Ok(Self::NameMemory { addr, len, name })
    }
    fn mmap(args: &Args<'_>) -> Result<Self, String> {
        let flags = MapFlags::from_bits_retain(args.int(3)?);
        // Only this kind of mapping checks every bit.
        let validates = flags.contains(MapFlags::SHARED_VALIDATE);
        let flags = if validates {
            args.long(3)?
        } else {
            flags.bits()
        };
        Ok(Self::Mmap {
            addr: args.number(0)?,
            len: args.number(1)?,
            prot: Prot::from_bits_retain(args.int(2)?),
            flags: MapFlags::from_bits_retain(flags),
            file: args.file(4)?,
            offset: args.number(5)?,
        })
    }
    fn mremap(args: &Args<'_>) -> Result<Self, String> {
        Ok(Self::Mremap(MremapArgs {
            addr: args.number(0)?,
            old_len: args.number(1)?,
            new_len: args.number(2)?,
            flags: MremapFlags::from_bits_retain(args.long(3)?),
            new_addr: args.number_or_0(4)?,
        }))
    }
    /// Parses `clone`, whose flags are among its arguments, and `clone3`, whose flags are in a
    /// structure.
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
            "memfd_create" => match args.string(0)? {
                Text::Is(name) => Self::Memfd {
                    name,
                    kind: MemfdKind {
                        huge: args.has(1, "MFD_HUGETLB")?,
                        sealable: args.has(1, "MFD_ALLOW_SEALING")?
                            || args.has(1, "MFD_NOEXEC_SEAL")?,
                    },
                },
                Text::Null | Text::Nowhere => Self::Other,
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
            "fallocate" => Self::Fallocate {
                file: args.file(0)?,
                mode: FallocateMode::from_bits_retain(args.int(1)?),
                offset: args.number(2)?,
                len: args.number(3)?,
            },
            "fcntl" if args.text(1).is_ok_and(|c| c == "F_ADD_SEALS") => Self::AddSeals {
                file: args.file(0)?,
                seals: Seals::from_bits_retain(args.int(2)?),
            },
            "memfd_secret" => Self::Secret,
            _ => Self::Other,
        })
    }
}

fn open_access(flags: &str) -> OpenAccess {
    let has = |flag| flags.split('|').any(|word| word == flag);
    if has("O_PATH") {
        OpenAccess::Path
    } else if has("O_RDWR") {
        OpenAccess::Both
    } else if has("O_WRONLY") || has("O_ACCMODE") {
        OpenAccess::Write
    } else {
        OpenAccess::Read
    }
}
