//! Errors of the calls that map.

use super::{
    common::{LimitError, VmaError},
    errno::Errno,
};
use thiserror::Error;

/// `mmap` failed; nothing changed, unless the error says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MmapError {
    /// The offset is not a multiple of the page size. Of huge pages that is found late, as for
    /// [`NoHugePages`](Self::NoHugePages).
    #[error("offset {0:#x} is not page aligned")]
    Offset(u64),
    /// The length is 0.
    #[error("length is 0")]
    ZeroLength,
    /// The length rounded up to pages wraps.
    #[error("length {0:#x} wraps when rounded up to pages")]
    Length(u64),
    /// The length rounded up to huge pages wraps.
    #[error("length {0:#x} wraps when rounded up to huge pages")]
    HugeLength(u64),
    /// `MAP_HUGETLB`: the pool has no huge pages for so many bytes. What was mapped at the place of the new mapping is
    /// gone.
    #[error("no huge pages for {0:#x} bytes")]
    NoHugePages(u64),
    /// Offset plus length wraps.
    #[error("page offset {0:#x} plus the length wraps")]
    OffsetOverflow(u64),
    /// More than `max_map_count` mappings exist.
    #[error("{0} mappings already, max_map_count is reached")]
    MapCount(usize),
    /// `MAP_FIXED` at an address that is not a multiple of the page size.
    #[error("fixed address {0:#x} is not page aligned")]
    Unaligned(u64),
    /// Longer than the address space, or a fixed range beyond its top.
    #[error("[{addr:#x}, +{len:#x}) does not fit below TASK_SIZE")]
    TooHigh {
        /// Address asked for.
        addr: u64,
        /// Length, rounded up.
        len: u64,
    },
    /// `MAP_FIXED` at one of the highest addresses, which Linux takes for the error of that number as soon as the place is
    /// chosen: EPERM at -1.
    #[error("fixed address {0:#x} is that of an error")]
    ErrorAddress(u64),
    /// No hole is large enough.
    #[error("no hole of {0:#x} bytes")]
    NoHole(u64),
    /// `MAP_FIXED_NOREPLACE` over an existing mapping.
    #[error("[{addr:#x}, +{len:#x}) overlaps an existing mapping")]
    Exists {
        /// Address asked for.
        addr: u64,
        /// Length, rounded up.
        len: u64,
    },
    /// `MAP_LOCKED` without the right to lock.
    #[error("no right to lock memory")]
    LockDenied,
    /// `RLIMIT_MEMLOCK`.
    #[error("{0} more locked pages exceed RLIMIT_MEMLOCK")]
    LockLimit(u64),
    /// Flags that contradict each other or name no mapping type.
    #[error("mapping flags {0:#x}")]
    Flags(u32),
    /// The file was not opened for what the mapping needs.
    #[error("the file was not opened for that")]
    Access,
    /// The object belongs to another machine.
    #[error("the object is on another machine")]
    OtherMachine,
    /// `MAP_SHARED_VALIDATE` with a flag that the object does not know.
    #[error("mapping flags {0:#x} are not supported")]
    FlagsUnsupported(u32),
    /// A limit.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The list of VMAs.
    #[error(transparent)]
    Vma(#[from] VmaError),
}

impl MmapError {
    /// Linux's errno.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Offset(_)
            | Self::ZeroLength
            | Self::HugeLength(_)
            | Self::Unaligned(_)
            | Self::Flags(_) => Errno::EINVAL,
            #[allow(clippy::cast_possible_wrap, clippy::cast_possible_truncation)]
            Self::ErrorAddress(addr) => {
                match Errno::from_raw((addr as i64).wrapping_neg() as i32) {
                    Some(errno) => errno,
                    // Of an error that no call here has, any will do.
                    None => Errno::ENOMEM,
                }
            }
            Self::OffsetOverflow(_) => Errno::EOVERFLOW,
            Self::Exists { .. } => Errno::EEXIST,
            Self::LockDenied => Errno::EPERM,
            Self::LockLimit(_) => Errno::EAGAIN,
            Self::FlagsUnsupported(_) => Errno::EOPNOTSUPP,
            Self::Access => Errno::EACCES,
            Self::OtherMachine => Errno::ENODEV,
            Self::Vma(e) => e.errno(),
            Self::Length(_)
            | Self::MapCount(_)
            | Self::TooHigh { .. }
            | Self::NoHole(_)
            | Self::NoHugePages(_)
            | Self::Limit(_) => Errno::ENOMEM,
        }
    }
}

/// `remap_file_pages` failed; nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RemapError {
    /// A protection other than 0.
    #[error("protection {0:#x}")]
    Prot(u32),
    /// Less than a page, or the range wraps.
    #[error("[{addr:#x}, +{len:#x}) is not a range of pages")]
    Range {
        /// Address asked for.
        addr: u64,
        /// Length asked for.
        len: u64,
    },
    /// The page offset wraps.
    #[error("page offset {0:#x} wraps")]
    Offset(u64),
    /// No shared mapping of one object throughout.
    #[error("no shared mapping of one object and one kind throughout at {0:#x}")]
    Unsuitable(u64),
    /// The new mapping.
    #[error(transparent)]
    Mmap(#[from] MmapError),
}

impl RemapError {
    /// Linux's errno.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Mmap(e) => e.errno(),
            _ => Errno::EINVAL,
        }
    }
}
