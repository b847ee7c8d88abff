//! Merging of neighbouring VMAs.
//!
//! There are two rules, both of Linux: a *new* range (mmap, brk, the target of a move) may be added
//! to its neighbours ([`MmapWriteGuard::merge_new`]); a *changed* range of a VMA (mprotect, mlock,
//! madvise) may go over to them ([`MmapWriteGuard::modify`]). Either way the ranges must agree in
//! flags, object, page offset and anonymous family.
//!
//! A driver may panic in the window that splits a huge page; so that window comes before any change
//! of the layout (ADR 0024).

use super::agree::Traits;
use crate::mm::{
    entry::flags::VmFlags,
    guard::MmapWriteGuard,
    vma::{Vma, extras::Extras},
};
use crate::{
    addr::{Vpn, VpnRange},
    error::VmaError,
    file::File,
    rmap::AnonLink,
};
use std::sync::Arc;

/// A range to be mapped.
#[derive(Debug)]
pub(in crate::mm) struct NewRange {
    pub(in crate::mm) range: VpnRange,
    pub(in crate::mm) pgoff: u64,
    pub(in crate::mm) flags: VmFlags,
    pub(in crate::mm) file: Option<Arc<File>>,
    /// Start of the VMA that is moved here: its anonymous family comes along.
    pub(in crate::mm) copied_from: Option<Vpn>,
    pub(in crate::mm) extras: Extras,
}

/// The properties that a part of a VMA is to have.
#[derive(Clone)]
pub(in crate::mm) struct Wanted {
    pub(in crate::mm) flags: VmFlags,
    pub(in crate::mm) extras: Extras,
}

fn span(start: Vpn, end: Vpn) -> VpnRange {
    VpnRange::new(start, end).expect("merging only extends a VMA")
}

impl MmapWriteGuard<'_> {
    /// Returns the VMA that starts at `start`.
    pub(in crate::mm) fn vma(&self, start: Vpn) -> &Vma {
        self.layout
            .vmas
            .get(start)
            .filter(|v| v.start() == start)
            .expect("the caller names a VMA by its start")
    }
    /// Gives a VMA the anonymous family of the pages that it grows over (`dup_anon_vma`).
    fn inherit_anon(&mut self, to: Vpn, from: Option<Box<AnonLink>>) {
        if let Some(link) = from {
            // Set already: then to this family, or the merge would have been refused.
            let _had_one = self.vma(to).anon.set(link);
        }
    }
    fn clone_anon(&self, of: Vpn) -> Option<Box<AnonLink>> {
        self.vma(of).anon.get().cloned()
    }

    /// Returns the properties of a range to be mapped; a range that is moved has those of its VMA.
    fn traits_of<'a>(&'a self, new: &'a NewRange) -> Traits<'a> {
        let from = new.copied_from.map(|at| self.vma(at));
        Traits {
            range: new.range,
            pgoff: new.pgoff,
            flags: new.flags,
            file: new.file.as_ref(),
            anon: from.and_then(Vma::anon_link),
            extras: &new.extras,
            stays: false,
        }
    }
    /// Adds a free range to its neighbours if they agree (`vma_merge_new_range`). Returns the start
    /// of the VMA that holds the range then.
    #[inline]
    pub(in crate::mm) fn merge_new(&mut self, new: &NewRange) -> Option<Vpn> {
        // Most neighbours differ in their flags, which are known without a look at the VMA.
        let alike = |(range, flags): &(VpnRange, u64)| {
            let touches = range.end() == new.range.start() || range.start() == new.range.end();
            let flags = VmFlags::from_bits_retain(*flags);
            touches && flags - VmFlags::STICKY == new.flags - VmFlags::STICKY
        };
        let near = self.layout.vmas.around(new.range);
        if new.flags.intersects(VmFlags::SPECIAL) || !near.iter().flatten().any(alike) {
            return None;
        }
        let near = near.map(|near| near.filter(alike).map(|(range, _)| range));
        self.merge_near(new, near)
    }
    /// Adds a free range to those of its neighbours, which have its flags, that agree in all else.
    fn merge_near(&mut self, new: &NewRange, [left, right]: [Option<VpnRange>; 2]) -> Option<Vpn> {
        let vmas = &self.layout.vmas;
        let vma = |range: VpnRange| vmas.get(range.start());
        let candidate = self.traits_of(new);
        let left = candidate.left(left.and_then(vma));
        let right = candidate.right(right.and_then(vma), left);
        let (left, right) = (left.map(Vma::range), right.map(Vma::range));
        let merges = left.is_some() || right.is_some();
        let copied = candidate.anon.filter(|_| merges);
        let copied = copied.cloned().map(Box::new);
        match (left, right) {
            (None, None) => None,
            (Some(left), right) => {
                let end = right.map_or(new.range.end(), VpnRange::end);
                let removed = right.map(|right| self.layout.vmas.remove(right.start()));
                if let Some(removed) = &removed {
                    self.inherit_anon(left.start(), removed.anon.get().cloned());
                }
                self.inherit_anon(left.start(), copied);
                let flags = removed.as_ref().map_or(new.flags, |r| r.flags | new.flags);
                // The removed VMA's records stay in the reverse maps until the grown VMA covers its
                // pages.
                self.layout.change(left.start(), |v| {
                    v.flags |= flags & VmFlags::STICKY;
                    v.set_range(span(left.start(), end), v.pgoff);
                });
                Some(left.start())
            }
            (None, Some(right)) => {
                self.inherit_anon(right.start(), copied);
                self.layout.change(right.start(), |v| {
                    v.flags |= new.flags & VmFlags::STICKY;
                    v.set_range(span(new.range.start(), right.end()), new.pgoff);
                });
                Some(new.range.start())
            }
        }
    }

    /// Gives `range`, part of the VMA that starts at `start`, the flags `flags`
    /// (`vma_modify_flags`): makes it part of a neighbour that has them already, else a VMA of its
    /// own. Returns the start of the VMA that holds the range then.
    ///
    /// # Errors
    ///
    /// The map limit, or no memory; a first split may stay behind, as on Linux.
    pub(in crate::mm) fn modify(
        &mut self,
        start: Vpn,
        range: VpnRange,
        flags: VmFlags,
    ) -> Result<Vpn, VmaError> {
        let wanted = self.wanted(start);
        self.modify_as(start, range, Wanted { flags, ..wanted })
    }
    /// Returns the properties that the VMA at `start` has now.
    pub(in crate::mm) fn wanted(&self, start: Vpn) -> Wanted {
        let vma = self.vma(start);
        Wanted {
            flags: vma.flags,
            extras: vma.extras.clone(),
        }
    }
    /// Gives the range other properties beside the flags (`vma_modify_name`, `vma_modify_policy`,
    /// `vma_modify_flags_uffd`); otherwise like [`modify`](Self::modify).
    pub(in crate::mm) fn modify_as(
        &mut self,
        start: Vpn,
        range: VpnRange,
        wanted: Wanted,
    ) -> Result<Vpn, VmaError> {
        if let Some(merged) = self.merge_existing(start, range, &wanted) {
            return Ok(merged);
        }
        let whole = self.vma(start).range();
        if whole.start() < range.start() {
            self.split(start, range.start())?;
        }
        if range.end() < whole.end() {
            self.split(range.start(), range.end())?;
        }
        self.layout.change(range.start(), |v| {
            v.flags = wanted.flags;
            v.extras = wanted.extras;
        });
        Ok(range.start())
    }

    /// Makes `range` part of a neighbour that agrees (`vma_merge_existing_range`).
    fn merge_existing(&mut self, start: Vpn, range: VpnRange, wanted: &Wanted) -> Option<Vpn> {
        let flags = wanted.flags;
        let vmas = &self.layout.vmas;
        let middle = self.vma(start);
        let whole = middle.range();
        let (left_side, right_side) = (range.start() == whole.start(), range.end() == whole.end());
        if flags.intersects(VmFlags::SPECIAL) || !(left_side || right_side) {
            return None;
        }
        let candidate = Traits {
            range,
            pgoff: middle.pgoff_at(range.start()),
            flags,
            extras: &wanted.extras,
            ..Traits::of(middle)
        };
        if left_side && right_side && candidate.stays {
            return None;
        }
        let left = left_side
            .then(|| candidate.left(vmas.before(start)))
            .flatten();
        let right = right_side
            .then(|| candidate.right(vmas.get(whole.end()), left))
            .flatten();
        let (left, right) = (left.map(Vma::range), right.map(Vma::range));
        match (left, right) {
            (None, None) => None,
            (Some(left), right) => Some(self.absorb_left(left, whole, range, right)),
            (None, Some(right)) => Some(self.absorb_right(whole, range, right)),
        }
    }
    /// Grows `left` over `range`, and over `right` if that fits too.
    fn absorb_left(
        &mut self,
        left: VpnRange,
        whole: VpnRange,
        range: VpnRange,
        right: Option<VpnRange>,
    ) -> Vpn {
        let family = self.clone_anon(whole.start());
        let end = right.map_or(range.end(), VpnRange::end);
        let grown = span(left.start(), end);
        let sticky = right
            .map_or(VmFlags::empty(), |right| self.vma(right.start()).flags)
            .union(self.vma(whole.start()).flags)
            & VmFlags::STICKY;
        let right_family = right.and_then(|right| self.clone_anon(right.start()));
        let rest = range.end() < whole.end();
        if rest {
            // The window comes first, since a driver may panic in it.
            self.split_huge(whole, range.end(), span(left.start(), whole.end()));
        }
        self.inherit_anon(left.start(), right_family);
        self.inherit_anon(left.start(), family);
        if rest {
            self.layout.announce(left.start(), grown);
            self.layout.change(whole.start(), |v| {
                let pgoff = v.pgoff_at(range.end());
                v.set_range(span(range.end(), whole.end()), pgoff);
            });
        } else {
            self.layout.announce(left.start(), grown);
            self.layout.vmas.remove(whole.start());
        }
        if let Some(right) = right {
            self.layout.vmas.remove(right.start());
        }
        self.layout.change(left.start(), |v| {
            v.flags |= sticky;
            v.set_range(grown, v.pgoff);
        });
        left.start()
    }
    /// Grows `right` down over `range`.
    fn absorb_right(&mut self, whole: VpnRange, range: VpnRange, right: VpnRange) -> Vpn {
        let family = self.clone_anon(whole.start());
        let grown = span(range.start(), right.end());
        let sticky = self.vma(whole.start()).flags & VmFlags::STICKY;
        let rest = whole.start() < range.start();
        if rest {
            // The window comes first, since a driver may panic in it.
            self.split_huge(whole, range.start(), span(whole.start(), right.end()));
        }
        self.inherit_anon(right.start(), family);
        if rest {
            self.layout.announce(right.start(), grown);
            self.layout.change(whole.start(), |v| {
                v.set_range(span(whole.start(), range.start()), v.pgoff);
            });
        } else {
            self.layout.announce(right.start(), grown);
            self.layout.vmas.remove(whole.start());
        }
        self.layout.change(right.start(), |v| {
            let pgoff = v.pgoff - range.pages();
            v.flags |= sticky;
            v.set_range(grown, pgoff);
        });
        range.start()
    }
}
