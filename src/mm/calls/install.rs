//! Mappings as a program loader makes them in a fresh address space, with exactly the given flags.

use crate::ctx::CallCx;
use crate::mm::{entry::flags::VmFlags, space::Mm, vma::Vma};
use crate::{
    addr::{PAGE_SHIFT, PAGE_SIZE, TASK_PAGES, Vpn, VpnRange},
    error::MmapError,
    file::File,
};
use std::sync::Arc;

/// A mapping that `execve` makes.
#[derive(Clone, Debug)]
pub struct Segment {
    /// First byte; a multiple of the page size.
    pub start: u64,
    /// One past the last byte; a multiple of the page size.
    pub end: u64,
    /// All its flags; `ACCOUNT` charges its pages to the commit limit.
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
    /// [`MmapError`]: a range that is empty, off page boundaries, too high or not free; a limit.
    /// Nothing changed then.
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
            return Err(MmapError::TooHigh { addr: start, len });
        }
        let range = VpnRange::new(Vpn::containing(start), Vpn::containing(end))
            .ok_or(MmapError::ZeroLength)?;
        let mut g = self.lock_exclusive(cx);
        let layout = &mut *g.layout;
        if layout.occupied(range) {
            return Err(MmapError::Exists { addr: start, len });
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
