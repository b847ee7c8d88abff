//! Errors of the calls that map.

use super::{
    common::{ByteRange, LimitError, VmaError},
    errno::Errno,
};
use thiserror::Error;

/// The error of `mmap`. Nothing changed, unless the variant states it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MmapError {
    /// The offset is not a multiple of the page size. For huge pages this is found late, as for
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
    /// The pool has no huge pages for so many bytes (`MAP_HUGETLB`). Mappings at the place of the
    /// new one are gone.
    #[error("no huge pages for {0:#x} bytes")]
    NoHugePages(u64),
    /// Offset plus length wraps.
    #[error("page offset {0:#x} plus the length wraps")]
    OffsetOverflow(u64),
    /// More than `max_map_count` mappings exist.
    #[error("{0} mappings already, max_map_count is reached")]
    MapCount(usize),
    /// The address of a `MAP_FIXED` mapping is not a multiple of the page size.
    #[error("fixed address {0:#x} is not page aligned")]
    Unaligned(u64),
    /// The mapping, its length rounded up, is longer than the address space, or a fixed range lies
    /// beyond its top.
    #[error("{0} does not fit below TASK_SIZE")]
    TooHigh(ByteRange),
    /// The address of a `MAP_FIXED` mapping is one of the highest, which Linux takes for an error
    /// number as soon as the place is chosen: EPERM at -1.
    #[error("fixed address {0:#x} is that of an error")]
    ErrorAddress(u64),
    /// No hole is large enough.
    #[error("no hole of {0:#x} bytes")]
    NoHole(u64),
    /// The range of a `MAP_FIXED_NOREPLACE` mapping, its length rounded up, overlaps another
    /// mapping.
    #[error("{0} overlaps an existing mapping")]
    Exists(ByteRange),
    /// The call has `MAP_LOCKED`, and the caller has no right to lock memory.
    #[error("no right to lock memory")]
    LockDenied,
    /// The pages would exceed `RLIMIT_MEMLOCK`.
    #[error("{0} more locked pages exceed RLIMIT_MEMLOCK")]
    LockLimit(u64),
    /// The flags contradict each other, or name no mapping type.
    #[error("mapping flags {0:#x}")]
    Flags(u32),
    /// No call can give a mapping these flags, or not this kind of mapping.
    #[error("a mapping has no flags {0:#x}")]
    SegmentFlags(u64),
    /// The file cannot be mapped. If a guest file says so, mappings at the place of the new one are
    /// gone.
    #[error("the file cannot be mapped")]
    Unmappable,
    /// Nothing of the file may be executed.
    #[error("nothing of the file may be executed")]
    NoExec,
    /// The object is sealed against writes, and the mapping would write.
    #[error("the object is sealed against writes")]
    WriteSealed,
    /// The object cannot keep the promise of `MAP_SYNC`. Mappings at the place of the new one are
    /// gone.
    #[error("stores to the object do not reach its store at once")]
    NotSynchronous,
    /// Secret memory cannot be mapped privately. Mappings at the place of the new one are gone.
    #[error("secret memory is shared")]
    PrivateSecret,
    /// The file allows only shared mappings that may be written. Mappings at the place of the new
    /// one are gone.
    #[error("the file has shared mappings only")]
    SharedOnly,
    /// The file was not opened for the access that the mapping needs.
    #[error("the file was not opened for that")]
    Access,
    /// The object belongs to another machine.
    #[error("the object is on another machine")]
    OtherMachine,
    /// The object does not know a flag of a `MAP_SHARED_VALIDATE` mapping.
    #[error("mapping flags {0:#x} are not supported")]
    FlagsUnsupported(u32),
    /// The mapping would exceed a limit.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The list of VMAs could not be changed.
    #[error(transparent)]
    Vma(#[from] VmaError),
}

impl MmapError {
    /// Returns Linux's errno.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Offset(_)
            | Self::ZeroLength
            | Self::HugeLength(_)
            | Self::Unaligned(_)
            | Self::SegmentFlags(_)
            | Self::PrivateSecret
            | Self::SharedOnly
            | Self::Flags(_) => Errno::EINVAL,
            #[allow(clippy::cast_possible_wrap, clippy::cast_possible_truncation)]
            Self::ErrorAddress(addr) => {
                match Errno::from_raw((addr as i64).wrapping_neg() as i32) {
                    Some(errno) => errno,
                    // No call here has an error of that number, so any errno will do.
                    None => Errno::ENOMEM,
                }
            }
            Self::OffsetOverflow(_) => Errno::EOVERFLOW,
            Self::Exists(_) => Errno::EEXIST,
            Self::LockDenied | Self::NoExec | Self::WriteSealed => Errno::EPERM,
            Self::LockLimit(_) => Errno::EAGAIN,
            Self::FlagsUnsupported(_) | Self::NotSynchronous => Errno::EOPNOTSUPP,
            Self::Access => Errno::EACCES,
            Self::OtherMachine | Self::Unmappable => Errno::ENODEV,
            Self::Vma(e) => e.errno(),
            Self::Length(_)
            | Self::MapCount(_)
            | Self::TooHigh(_)
            | Self::NoHole(_)
            | Self::NoHugePages(_)
            | Self::Limit(_) => Errno::ENOMEM,
        }
    }
}

/// The error of `remap_file_pages`. Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RemapError {
    /// The protection is not 0.
    #[error("protection {0:#x}")]
    Prot(u32),
    /// The range is shorter than a page, or wraps.
    #[error("{0} is not a range of pages")]
    Range(ByteRange),
    /// The page offset wraps.
    #[error("page offset {0:#x} wraps")]
    Offset(u64),
    /// The range is not covered by shared mappings of one object and one kind.
    #[error("no shared mapping of one object and one kind throughout at {0:#x}")]
    Unsuitable(u64),
    /// The new mapping could not be made.
    #[error(transparent)]
    Mmap(#[from] MmapError),
}

impl RemapError {
    /// Returns Linux's errno.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Mmap(e) => e.errno(),
            _ => Errno::EINVAL,
        }
    }
}
