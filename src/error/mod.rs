//! Every operation fails with its own enum; each variant carries the offending value and has Linux's errno.
//!
//! A failed operation changed nothing unless its documentation says that it, as Linux does, keeps what was done
//! before the failure (`mprotect`, `madvise` and `mlock` over several VMAs).

mod advice;
mod mmap;
mod object;

pub use advice::{
    CopyError, FaultError, ForkError, MadviseError, MincoreError, MlockError, MsealError,
    MsyncError, TransferError,
};

pub use mmap::{MmapError, RemapError};
pub use object::ObjectError;

use thiserror::Error;

macro_rules! errnos {
    ($($(#[$m:meta])* $name:ident = $value:literal,)*) => {
        /// The errno values that the modelled system calls return.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(i32)]
        pub enum Errno { $($(#[$m])* $name = $value,)* }

        impl std::fmt::Display for Errno {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(match self { $(Errno::$name => stringify!($name),)* })
            }
        }

        impl Errno {
            /// The errno of a number, if the modelled system calls return it.
            pub const fn from_raw(raw: i32) -> Option<Self> {
                match raw {
                    $($value => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

errnos! {
    /// Operation not permitted.
    EPERM = 1,
    /// Reading or writing a store failed.
    EIO = 5,
    /// A descriptor without the right that is needed.
    EBADF = 9,
    /// Try again: a limit on locked memory, or a split refused at the map limit (`madvise`).
    EAGAIN = 11,
    /// Out of memory, address space or map entries.
    ENOMEM = 12,
    /// Permission denied.
    EACCES = 13,
    /// Bad address.
    EFAULT = 14,
    /// Device or resource busy.
    EBUSY = 16,
    /// Already mapped.
    EEXIST = 17,
    /// No such device.
    ENODEV = 19,
    /// Invalid argument.
    EINVAL = 22,
    /// Beyond the largest size of an object.
    EFBIG = 27,
    /// Value too large.
    EOVERFLOW = 75,
    /// Operation not supported.
    EOPNOTSUPP = 95,
}

impl Errno {
    /// The number, positive as in `errno`.
    pub const fn raw(self) -> i32 {
        self as i32
    }
}

/// An address above `TASK_SIZE` where one of a process is wanted; nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{0:#x} lies above TASK_SIZE")]
pub struct BeyondTask(
    /// The address.
    pub u64,
);

impl BeyondTask {
    /// The address itself if it is one of a process, or the end of the address space.
    pub(crate) const fn check(addr: u64) -> Result<u64, Self> {
        if addr > crate::addr::TASK_SIZE {
            return Err(Self(addr));
        }
        Ok(addr)
    }
    /// Linux's errno.
    pub const fn errno(self) -> Errno {
        Errno::EINVAL
    }
}

/// A driver was not put on the chain: windows could never have its consent. Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RegisterError {
    /// When the driver was built, there was no gate on its seat: it was dropped, or put away for later.
    #[error("{0} built no gate on its seat, so it cannot answer a window")]
    NoGate(
        /// What the driver is called.
        &'static str,
    ),
    /// The driver is registered already, here or in another address space. Its gate is of that registration.
    #[error("{0} is registered already")]
    Twice(
        /// What the driver is called.
        &'static str,
    ),
}

impl RegisterError {
    /// The errno that fits; Linux has none for this.
    pub const fn errno(self) -> Errno {
        match self {
            Self::NoGate(_) => Errno::EINVAL,
            Self::Twice(_) => Errno::EEXIST,
        }
    }
}

/// The signal that a faulting access would have raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Signal {
    /// SIGSEGV.
    Segv,
    /// SIGBUS.
    Bus,
}

impl std::fmt::Display for Signal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Segv => "SIGSEGV",
            Self::Bus => "SIGBUS",
        })
    }
}

/// Changing the list of VMAs failed: the part that all operations share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum VmaError {
    /// A split would exceed `max_map_count`.
    #[error("{count} mappings: a split would exceed max_map_count")]
    MapCount {
        /// VMAs present.
        count: usize,
    },
    /// An internal allocation failed.
    #[error("out of memory for {0}")]
    NoMemory(#[from] NoMemory),
    /// The VMA at this address is sealed (`mseal`).
    #[error("the mapping at {0:#x} is sealed")]
    Sealed(u64),
}

impl VmaError {
    /// Linux's errno.
    pub const fn errno(self) -> Errno {
        match self {
            Self::MapCount { .. } | Self::NoMemory(_) => Errno::ENOMEM,
            Self::Sealed(_) => Errno::EPERM,
        }
    }
}

/// What could not be allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[cfg_attr(feature = "remote", derive(serde::Serialize, serde::Deserialize))]
pub enum NoMemory {
    /// Physical memory is used up.
    #[error("a frame")]
    Frame,
    /// A page-table page.
    #[error("a page table")]
    Table,
    /// A VMA.
    #[error("a VMA")]
    Vma,
    /// A node of the anonymous reverse map.
    #[error("an anon_vma")]
    AnonVma,
    /// A memory object.
    #[error("a memory object")]
    Object,
}

/// A resource limit or the commit limit stands in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LimitError {
    /// `RLIMIT_AS`.
    #[error("{pages} more pages exceed RLIMIT_AS")]
    AddressSpace {
        /// Pages asked for.
        pages: u64,
    },
    /// `RLIMIT_DATA`.
    #[error("{pages} more pages exceed RLIMIT_DATA")]
    Data {
        /// Pages asked for.
        pages: u64,
    },
    /// The overcommit rule refuses.
    #[error("cannot commit {pages} more pages")]
    Commit {
        /// Pages asked for.
        pages: u64,
    },
}

/// `munmap` failed; nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MunmapError {
    /// Unaligned, empty, or beyond `TASK_SIZE`.
    #[error("[{addr:#x}, +{len:#x}) is not a range of pages")]
    Range {
        /// Address asked for.
        addr: u64,
        /// Length asked for.
        len: u64,
    },
    /// The list of VMAs.
    #[error(transparent)]
    Vma(#[from] VmaError),
}

impl MunmapError {
    /// Linux's errno.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Range { .. } => Errno::EINVAL,
            Self::Vma(e) => e.errno(),
        }
    }
}

/// `mprotect` failed; VMAs before the failing one stay changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MprotectError {
    /// Unknown bits, or both `PROT_GROWSDOWN` and `PROT_GROWSUP`.
    #[error("protection {0:#x}")]
    Prot(u32),
    /// Unaligned address.
    #[error("address {0:#x} is not page aligned")]
    Unaligned(u64),
    /// Address plus length wraps.
    #[error("[{addr:#x}, +{len:#x}) wraps")]
    Wraps {
        /// Address asked for.
        addr: u64,
        /// Length asked for.
        len: u64,
    },
    /// A hole in the range.
    #[error("nothing is mapped at {0:#x}")]
    Hole(u64),
    /// `PROT_GROWSDOWN` or `PROT_GROWSUP` on a VMA that does not grow that way.
    #[error("the mapping at {0:#x} does not grow that way")]
    NotGrowing(u64),
    /// The VMA may never have this right.
    #[error("the mapping at {0:#x} may not have this protection")]
    Denied(u64),
    /// A limit.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The list of VMAs.
    #[error(transparent)]
    Vma(#[from] VmaError),
}

impl MprotectError {
    /// Linux's errno.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Prot(_) | Self::Unaligned(_) | Self::NotGrowing(_) => Errno::EINVAL,
            Self::Wraps { .. } | Self::Hole(_) | Self::Limit(_) => Errno::ENOMEM,
            Self::Denied(_) => Errno::EACCES,
            Self::Vma(e) => e.errno(),
        }
    }
}

/// `mremap` failed; what a target or tail lost before a late failure stays lost, as on Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MremapError {
    /// Unknown or contradicting flags.
    #[error("mremap flags {0:#x}")]
    Flags(u32),
    /// An address is not page aligned.
    #[error("address {0:#x} is not page aligned")]
    Unaligned(u64),
    /// The new length is 0 or larger than the address space.
    #[error("new length {0:#x}")]
    NewLength(u64),
    /// The new range does not fit below `TASK_SIZE`.
    #[error("new range [{addr:#x}, +{len:#x}) does not fit below TASK_SIZE")]
    TooHigh {
        /// New address.
        addr: u64,
        /// New length.
        len: u64,
    },
    /// Old and new ranges overlap.
    #[error("old and new ranges overlap at {0:#x}")]
    Overlap(u64),
    /// Old length 0 on a private mapping.
    #[error("the mapping at {0:#x} is private and cannot be duplicated")]
    NotShared(u64),
    /// The page offset would wrap.
    #[error("the page offset of the grown mapping at {0:#x} wraps")]
    OffsetOverflow(u64),
    /// Nothing mapped there, or the range leaves its VMA.
    #[error("{0:#x}: not mapped, or the range leaves its mapping")]
    BadRange(u64),
    /// The mapping may not be expanded.
    #[error("the mapping at {0:#x} may not be expanded")]
    DontExpand(u64),
    /// `RLIMIT_MEMLOCK`.
    #[error("{0} more locked pages exceed RLIMIT_MEMLOCK")]
    LockLimit(u64),
    /// Cannot grow in place and may not move, or no hole is large enough.
    #[error("no room for {0:#x} bytes")]
    NoRoom(u64),
    /// A limit.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The list of VMAs.
    #[error(transparent)]
    Vma(#[from] VmaError),
}

impl MremapError {
    /// Linux's errno.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Flags(_)
            | Self::Unaligned(_)
            | Self::NewLength(_)
            | Self::TooHigh { .. }
            | Self::Overlap(_)
            | Self::NotShared(_)
            | Self::OffsetOverflow(_) => Errno::EINVAL,
            Self::BadRange(_) | Self::DontExpand(_) => Errno::EFAULT,
            Self::LockLimit(_) => Errno::EAGAIN,
            Self::NoRoom(_) | Self::Limit(_) => Errno::ENOMEM,
            Self::Vma(e) => e.errno(),
        }
    }
}

impl From<MunmapError> for MremapError {
    fn from(e: MunmapError) -> Self {
        match e {
            MunmapError::Range { addr, .. } => Self::Unaligned(addr),
            MunmapError::Vma(v) => Self::Vma(v),
        }
    }
}
