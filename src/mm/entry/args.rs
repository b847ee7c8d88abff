//! Arguments of the calls that map, and the checks that need nothing but the arguments.
//!
//! These checks run before any lock is taken, in the order of the kernel, so that a call with
//! several mistakes reports the one that Linux reports.

use super::flags::{MapFlags, MremapFlags, Prot};
use crate::{
    addr::{PAGE_SHIFT, PAGE_SIZE, TASK_SIZE, Vpn, VpnRange},
    error::{ByteRange, MmapError, MunmapError},
    file::{File, HugetlbFile},
    frame::HugeSize,
};
use std::sync::Arc;

/// Arguments of [`Mm::mmap`](crate::mm::Mm::mmap), as the system call gets them.
///
/// # Examples
///
/// ```
/// use emmu::{PAGE_SIZE, file::{File, FileMode, Shmem}, mm::{MmapArgs, Prot}};
/// # let machine = emmu::Machine::new(Default::default());
/// # let mut thread = machine.enter()?;
/// # let mut cx = thread.cx();
/// # let mm = emmu::Mm::new(&machine);
///
/// // One page of a file, from its second page on, shared and read-only.
/// let memory = Shmem::memfd(machine.host(), "log", 4 * PAGE_SIZE)?;
/// let file = File::open(memory, FileMode::ReadWrite);
/// let args = MmapArgs::anonymous(PAGE_SIZE).file(&file, PAGE_SIZE).shared().prot(Prot::READ);
/// let at = mm.mmap(&mut cx, &args)?;
///
/// file.write_at(cx.reborrow(), PAGE_SIZE, b"entry")?;
/// assert_eq!(mm.load(&mut cx, at)?, b'e');
/// assert_eq!(mm.maps(&mut cx)[0].perms(), "r--s");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct MmapArgs {
    /// Wanted address in bytes: a hint unless the flags make it fixed; 0 is no wish.
    pub addr: u64,
    /// Length in bytes; rounded up to pages.
    pub len: u64,
    /// Rights of the mapping.
    pub prot: Prot,
    /// Kind of the mapping, and options.
    pub flags: MapFlags,
    /// The file to map; `None` maps anonymous memory.
    pub file: Option<Arc<File>>,
    /// Offset into the file in bytes. Must be a multiple of the page size, also where no file is
    /// mapped.
    pub offset: u64,
}

impl MmapArgs {
    /// Private anonymous memory of `len` bytes, readable and writable, at any address.
    pub fn anonymous(len: u64) -> Self {
        Self {
            addr: 0,
            len,
            prot: Prot::READ | Prot::WRITE,
            flags: MapFlags::PRIVATE | MapFlags::ANONYMOUS,
            file: None,
            offset: 0,
        }
    }
    /// Maps at exactly `addr` (in bytes) and replaces the mappings there: adds [`MapFlags::FIXED`].
    #[must_use]
    pub fn fixed(self, addr: u64) -> Self {
        Self {
            addr,
            flags: self.flags | MapFlags::FIXED,
            ..self
        }
    }
    /// Replaces the rights.
    #[must_use]
    pub fn prot(self, prot: Prot) -> Self {
        Self { prot, ..self }
    }
    /// Makes the mapping shared instead of private.
    #[must_use]
    pub fn shared(self) -> Self {
        Self {
            flags: (self.flags - MapFlags::PRIVATE) | MapFlags::SHARED,
            ..self
        }
    }
    /// Maps `file` from byte `offset` on instead of anonymous memory.
    #[must_use]
    pub fn file(self, file: &Arc<File>, offset: u64) -> Self {
        Self {
            file: Some(Arc::clone(file)),
            flags: self.flags - MapFlags::ANONYMOUS,
            offset,
            ..self
        }
    }
    /// Adds flags to those that are set.
    #[must_use]
    pub fn flags(self, flags: MapFlags) -> Self {
        Self {
            flags: self.flags | flags,
            ..self
        }
    }
}

/// Arguments of [`Mm::mremap`](crate::mm::Mm::mremap), as the system call gets them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MremapArgs {
    /// Address of the old range, in bytes.
    pub addr: u64,
    /// Length of the old range in bytes, rounded up to pages; 0 duplicates a shared mapping.
    pub old_len: u64,
    /// Wanted length in bytes, rounded up to pages.
    pub new_len: u64,
    /// How the mapping may change.
    pub flags: MremapFlags,
    /// Target address in bytes with `FIXED`; a hint with `DONTUNMAP` alone.
    pub new_addr: u64,
}

/// The bits of [`MapFlags`] that name the kind of a mapping (`MAP_TYPE`).
pub(in crate::mm) const TYPE: MapFlags = MapFlags::from_bits_retain(0x0f);

/// The bits that name a size of huge pages, as the exponent of a power of two.
const SIZE: u32 = 0x3f;
const SIZE_SHIFT: u32 = 26;

/// Checks offset and length of an `mmap` and returns the length in pages.
#[inline]
pub(in crate::mm) fn check_args(args: &MmapArgs) -> Result<u64, MmapError> {
    if !args.offset.is_multiple_of(PAGE_SIZE) {
        return Err(MmapError::Offset(args.offset));
    }
    let huge = size_of_pages(args)?;
    if args.len == 0 {
        return Err(MmapError::ZeroLength);
    }
    let len = match huge {
        Some(size) => args
            .len
            .checked_next_multiple_of(size.pages() << PAGE_SHIFT)
            .ok_or(MmapError::HugeLength(args.len))?,
        None => args.len,
    };
    let pages = len
        .checked_next_multiple_of(PAGE_SIZE)
        .ok_or(MmapError::Length(args.len))?
        >> PAGE_SHIFT;
    let pgoff = args.offset >> PAGE_SHIFT;
    if pgoff.checked_add(pages).is_none() {
        return Err(MmapError::OffsetOverflow(pgoff));
    }
    Ok(pages)
}

/// Returns the size of the huge pages that are mapped: that of the file, or the one that the
/// arguments ask for (`hstate_sizelog`); `None` without huge pages.
#[inline]
pub(in crate::mm) fn size_of_pages(args: &MmapArgs) -> Result<Option<HugeSize>, MmapError> {
    match &args.file {
        None if !args.flags.contains(MapFlags::HUGETLB) => Ok(None),
        file => size_of_huge_pages(file.as_ref(), args.flags),
    }
}
fn size_of_huge_pages(
    file: Option<&Arc<File>>,
    flags: MapFlags,
) -> Result<Option<HugeSize>, MmapError> {
    if let Some(file) = file.and_then(|file| HugetlbFile::of(&**file.object())) {
        return Ok(Some(file.huge_size()));
    }
    if !flags.contains(MapFlags::HUGETLB) {
        return Ok(None);
    }
    match (flags.bits() >> SIZE_SHIFT) & SIZE {
        // The flag cannot turn an open file into one of huge pages.
        _ if file.is_some() => Err(MmapError::Flags(flags.bits())),
        0 | 21 => Ok(Some(HugeSize::Mib2)),
        30 => Ok(Some(HugeSize::Gib1)),
        _ => Err(MmapError::Flags(flags.bits())),
    }
}

/// Checks a range of bytes and rounds its length up to pages, as `do_vmi_munmap` does.
#[inline]
pub(in crate::mm) fn check_range(addr: u64, len: u64) -> Result<VpnRange, MunmapError> {
    let bad = MunmapError::Range(ByteRange { addr, len });
    if !addr.is_multiple_of(PAGE_SIZE) || addr > TASK_SIZE || len > TASK_SIZE - addr {
        return Err(bad);
    }
    let end = addr + len.next_multiple_of(PAGE_SIZE);
    VpnRange::new(Vpn::containing(addr), Vpn(end >> PAGE_SHIFT)).ok_or(bad)
}
