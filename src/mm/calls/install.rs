//! Mappings as a program loader makes them in a fresh address space, with exactly the given flags.

use crate::mm::{entry::flags::VmFlags, space::Mm, vma::Vma};
use crate::{
    addr::{PAGE_SHIFT, PAGE_SIZE, TASK_PAGES, Vpn, VpnRange},
    ctx::CallCx,
    error::{ByteRange, MmapError},
    file::{File, HugetlbFile},
};
use std::sync::Arc;

/// A mapping that `execve` makes.
#[derive(Clone, Debug)]
pub struct Segment {
    /// First byte; a multiple of the page size.
    pub start: u64,
    /// One past the last byte; a multiple of the page size.
    pub end: u64,
    /// All its flags, which must be ones that `mmap`, `mprotect` and `madvise` can give such a
    /// mapping. `ACCOUNT` charges its pages to the commit limit. A locked mapping, or one whose
    /// pages may be merged, is made by a call after this one.
    pub flags: VmFlags,
    /// The mapped file; `None`: private anonymous memory.
    pub file: Option<Arc<File>>,
    /// Offset into the file in bytes; a multiple of the page size.
    pub offset: u64,
}

impl Mm {
    /// Adds a mapping as a VMA of its own, which does not merge, and faults nothing in.
    ///
    /// # Errors
    ///
    /// [`MmapError`]: a range that is empty, off page boundaries, too high or not free; flags that
    /// no mapping of that kind has; a file that was not opened for them, is on another machine, or
    /// has no such offset; a limit. Nothing changed then.
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::mm::{Segment, VmFlags};
    /// # let machine = emmu::Machine::new(Default::default());
    /// # let mut thread = machine.enter()?;
    /// # let mut cx = thread.cx();
    /// # let mm = emmu::Mm::new(&machine);
    ///
    /// let may = VmFlags::MAYREAD | VmFlags::MAYWRITE | VmFlags::MAYEXEC;
    /// let flags = VmFlags::READ | VmFlags::EXEC | may;
    /// let text = Segment { start: 0x40_0000, end: 0x40_2000, flags, file: None, offset: 0 };
    /// mm.install(&mut cx, &text)?;
    /// assert_eq!(mm.maps(&mut cx)[0].perms(), "r-xp");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn install(&self, cx: &mut CallCx<'_>, segment: &Segment) -> Result<(), MmapError> {
        let Segment { start, end, .. } = *segment;
        let len = end.saturating_sub(start);
        if let Some(&at) = [start, end].iter().find(|a| !a.is_multiple_of(PAGE_SIZE)) {
            return Err(MmapError::Unaligned(at));
        }
        if !segment.offset.is_multiple_of(PAGE_SIZE) {
            return Err(MmapError::Offset(segment.offset));
        }
        if end > TASK_PAGES << PAGE_SHIFT {
            return Err(MmapError::TooHigh(ByteRange { addr: start, len }));
        }
        let range = VpnRange::new(Vpn::containing(start), Vpn::containing(end))
            .ok_or(MmapError::ZeroLength)?;
        check_flags(segment)?;
        let mut g = self.lock_exclusive(cx);
        if let Some(file) = &segment.file {
            g.check_file(file, segment.offset >> PAGE_SHIFT, range.pages())?;
        }
        let layout = &mut *g.layout;
        if layout.occupied(range) {
            return Err(MmapError::Exists(ByteRange { addr: start, len }));
        }
        layout.may_expand(segment.flags, range.pages())?;
        layout.alloc_vma()?;
        if segment.flags.contains(VmFlags::ACCOUNT) {
            layout.charge(range.pages())?;
        }
        let pgoff = match &segment.file {
            Some(_) => segment.offset >> PAGE_SHIFT,
            None => range.start().0,
        };
        layout.account(segment.flags, range.pages());
        layout.insert(Vma::new(range, pgoff, segment.flags, segment.file.clone()));
        Ok(())
    }
}

/// The flags that no call gives any mapping without more work than the flag: to count locked
/// memory, to look for pages to merge, to set markers.
const NEVER: VmFlags = VmFlags::LOCK_MASK
    .union(VmFlags::MERGEABLE)
    .union(VmFlags::MAYBE_GUARD)
    .union(VmFlags::HUGETLB)
    .union(VmFlags::NONLINEAR);

/// Checks that the calls that map, and those that advise, can give a mapping these flags.
fn check_flags(segment: &Segment) -> Result<(), MmapError> {
    let flags = segment.flags;
    let has = |all| flags.contains(all);
    let may = VmFlags::from_bits_truncate((flags & VmFlags::ACCESS).bits() << 4);
    let shared = flags.intersects(VmFlags::SHARED | VmFlags::MAYSHARE);
    let droppable = VmFlags::WIPEONFORK | VmFlags::NORESERVE | VmFlags::DONTDUMP;
    let mut possible = VmFlags::all().contains(flags)
        && !flags.intersects(NEVER)
        && has(may)
        && !has(VmFlags::ACCOUNT | VmFlags::NORESERVE)
        && !has(VmFlags::HUGEPAGE | VmFlags::NOHUGEPAGE)
        && !(has(VmFlags::DROPPABLE) && (!has(droppable) || has(VmFlags::GROWSDOWN)));
    possible &= match shared {
        // Without the right to become writable, a fork would not protect its private pages.
        false => has(VmFlags::MAYWRITE),
        // Of a file that is not writable, it only shows as shared.
        true => has(VmFlags::MAYSHARE) && has(VmFlags::SHARED) == has(VmFlags::MAYWRITE),
    };
    let anonymous = VmFlags::GROWSDOWN | VmFlags::WIPEONFORK | VmFlags::DROPPABLE;
    possible &= match &segment.file {
        // Shared anonymous memory is of an object, which `mmap` makes.
        None => !shared,
        // Huge pages of a pool are promised by `mmap`.
        Some(file) if HugetlbFile::of(&**file.object()).is_some() => false,
        Some(_) => !(flags.intersects(anonymous) || shared && has(VmFlags::ACCOUNT)),
    };
    if !possible {
        return Err(MmapError::SegmentFlags(flags.bits()));
    }
    match &segment.file {
        Some(file) if !file.is_readable() => Err(MmapError::Access),
        Some(file) if has(VmFlags::SHARED) && !file.is_writable() => Err(MmapError::Access),
        _ => Ok(()),
    }
}
