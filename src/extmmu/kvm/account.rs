//! The account of the windows over guest frames that one mmu lock keeps.

use super::gfn::Gfn;

/// The open windows of one mmu lock, and the guest frames that they forbid.
#[derive(Debug, Default)]
pub(super) struct Account {
    /// The number of open windows (`mmu_invalidate_in_progress`).
    in_progress: u64,
    /// The guest frames of these windows, in one range that never shrinks while one of them is
    /// open.
    forbidden: Option<(Gfn, Gfn)>,
}

impl Account {
    /// Returns the number of open windows.
    pub(super) fn in_progress(&self) -> u64 {
        self.in_progress
    }
    /// Counts a window in (`kvm_mmu_invalidate_begin`).
    pub(super) fn begin(&mut self) {
        self.in_progress += 1;
    }
    /// Widens the forbidden range by the guest frames `[first, end)`
    /// (`kvm_mmu_invalidate_range_add`).
    pub(super) fn forbid(&mut self, first: Gfn, end: Gfn) {
        self.forbidden = Some(match self.forbidden {
            Some((s, e)) => (s.min(first), e.max(end)),
            None => (first, end),
        });
    }
    /// Counts a window out. The caller has advanced the sequence.
    pub(super) fn end(&mut self) {
        self.in_progress = self
            .in_progress
            .checked_sub(1)
            .expect("the slots of a window's end are those of its beginning");
        if self.in_progress == 0 {
            self.forbidden = None;
        }
    }
    /// Returns true if a window over the guest frame may be open.
    pub(super) fn forbids(&self, gfn: Gfn) -> bool {
        let inside = self.forbidden.is_some_and(|(s, e)| s <= gfn && gfn < e);
        self.in_progress > 0 && inside
    }
}
