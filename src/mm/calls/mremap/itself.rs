//! A VMA that changes its place, instead of being copied.
//!
//! A copied VMA has two records in its reverse maps while its entries move, one entry or table
//! after the other, and walks find each page by one or the other. Where all entries move in one
//! step, the step itself, which keeps walks out, lets the one record lead to the new place. So the
//! VMA can stay what it is, and changes its address when the entries are there.

use super::{
    moving::pgoff_at_target,
    relocate::{Moved, Relocation},
};
use crate::mm::guard::MmapWriteGuard;
use crate::{
    addr::VpnRange,
    error::{NoMemory, VmaError},
    rmap::NewPlace,
};

impl MmapWriteGuard<'_> {
    /// Moves the VMA of these pages to `to`.
    ///
    /// # Errors
    ///
    /// A table at the target was refused. Everything is where it was.
    pub(super) fn move_itself(&mut self, from: VpnRange, to: VpnRange) -> Result<(), VmaError> {
        let mut itself = Itself {
            from,
            to,
            place: NewPlace::at(to.start()),
            has_moved: false,
            guard: self,
        };
        itself.move_entries().map_err(VmaError::NoMemory)?;
        drop(itself);
        self.leave(from);
        Ok(())
    }
}

/// A VMA that moves. It changes its place when this is dropped, if its entries have: also after a
/// driver's panic at the end of the window (ADR 0024).
struct Itself<'a, 'g> {
    guard: &'a mut MmapWriteGuard<'g>,
    from: VpnRange,
    to: VpnRange,
    place: NewPlace,
    has_moved: bool,
}

impl Itself<'_, '_> {
    fn move_entries(&mut self) -> Result<(), NoMemory> {
        let mv = Relocation {
            old_vma: self.from,
            new_vma: self.to,
            from: self.from,
            to: self.to.start(),
            unprotects: false,
            itself: Some(self.place),
        };
        let has_moved = &mut self.has_moved;
        self.guard
            .relocate(mv, |moved| *has_moved = moved == Moved::All)
    }
}

impl Drop for Itself<'_, '_> {
    fn drop(&mut self) {
        if !self.has_moved {
            return;
        }
        let Self {
            from, to, place, ..
        } = *self;
        self.guard.layout.vmas.update(from.start(), |vma| {
            let pgoff = pgoff_at_target(vma, from.start(), to);
            vma.arrive(to, pgoff, place);
        });
    }
}
