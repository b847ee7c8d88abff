//! The VMAs around a range as an operation would leave them, worked out on copies of their
//! properties. It follows `merge` and `split` step by step; a property test holds it to them.

use super::agree::Traits;
use crate::addr::{Vpn, VpnRange};
use crate::mm::{
    entry::flags::VmFlags,
    vma::{Vma, tree::VmaTree},
};

/// The numbers of VMAs that an operation takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct VmaCost {
    /// The VMAs of the address space now.
    pub before: usize,
    /// The VMAs of the address space after the operation.
    pub after: usize,
    /// The smallest [`max_map_count`](crate::MachineConfig::max_map_count) with which the operation
    /// succeeds; 0 if it does with any.
    pub least_limit: usize,
}

/// The properties of the VMAs at a range and next to it, as changes leave them.
pub(in crate::mm) struct Plan<'a> {
    pieces: Vec<Traits<'a>>,
    /// The VMAs that are not among the pieces.
    others: usize,
    cost: VmaCost,
}

impl<'a> Plan<'a> {
    /// Copies the VMAs that overlap `range` or touch it.
    pub(in crate::mm) fn around(vmas: &'a VmaTree<Vma>, range: VpnRange) -> Self {
        let first = Vpn(range.start().0.saturating_sub(1));
        let near = VpnRange::new(first, Vpn(range.end().0.saturating_add(1)));
        let near = vmas.range(near.expect("the range is not empty"));
        let pieces: Vec<_> = near.map(Traits::of).collect();
        let before = vmas.len();
        Self {
            others: before - pieces.len(),
            cost: VmaCost {
                before,
                after: before,
                least_limit: 0,
            },
            pieces,
        }
    }
    pub(in crate::mm) fn cost(mut self) -> VmaCost {
        self.cost.after = self.others + self.pieces.len();
        self.cost
    }
    /// Counts the VMAs of this moment, which the limit must allow.
    pub(in crate::mm) fn check(&mut self) {
        let now = self.others + self.pieces.len();
        self.cost.least_limit = self.cost.least_limit.max(now);
    }
    /// Gives each piece in `range` the flags that `change` returns for it; pieces with `None` stay
    /// as they are.
    pub(in crate::mm) fn change(
        &mut self,
        range: VpnRange,
        change: impl Fn(&Traits<'a>) -> Option<VmFlags>,
    ) {
        let mut at = range.start();
        while let Some(i) = self.find(at).filter(|_| at < range.end()) {
            let piece = self.pieces[i];
            let Some(part) = piece.range.intersect(range) else {
                break; // The next piece lies above the range.
            };
            at = match change(&piece).filter(|&new| new != piece.flags) {
                None => piece.range.end(),
                Some(new) => self.modify(i, part, new),
            };
        }
    }
    /// Returns the first piece that ends above `at`.
    fn find(&self, at: Vpn) -> Option<usize> {
        self.pieces.iter().position(|piece| at < piece.range.end())
    }
    /// Gives part of a piece other flags (`vma_modify`). Returns the end of the piece that holds it
    /// then.
    fn modify(&mut self, i: usize, part: VpnRange, flags: VmFlags) -> Vpn {
        let whole = self.pieces[i];
        let changed = Traits {
            flags,
            ..cut(whole, part)
        };
        let (at_start, at_end) = (
            part.start() == whole.range.start(),
            part.end() == whole.range.end(),
        );
        let below = i.checked_sub(1).filter(|_| at_start);
        let (left, right) = self.mergeable(&changed, below, at_end.then_some(i + 1));
        let pinned = whole.stays && at_start && at_end;
        if pinned || flags.intersects(VmFlags::SPECIAL) || (left.is_none() && right.is_none()) {
            self.split_off(i, changed);
            return part.end();
        }
        let merged = join([left, Some(changed), right]);
        let first = i - usize::from(left.is_some());
        let last = i + usize::from(right.is_some());
        let below = (!at_start).then(|| cut(whole, span(whole.range.start(), part.start())));
        let above = (!at_end).then(|| cut(whole, span(part.end(), whole.range.end())));
        let pieces = below.into_iter().chain([merged]).chain(above);
        self.pieces.splice(first..=last, pieces);
        merged.range.end()
    }
    /// Returns the pieces with these numbers, below and above `new`, if they can grow over it.
    fn mergeable(
        &self,
        new: &Traits<'a>,
        below: Option<usize>,
        above: Option<usize>,
    ) -> (Option<Traits<'a>>, Option<Traits<'a>>) {
        let piece = |i: usize| self.pieces.get(i).copied();
        let left = below.and_then(piece).filter(|left| new.continues(left));
        let right = above.and_then(piece).filter(|right| right.continues(new));
        let right = right.filter(|right| left.is_none_or(|left| left.allows_beyond(right)));
        (left, right)
    }
    /// Makes `changed` a piece of its own in place of that part of piece `i`; each of the splits is
    /// checked against the limit.
    fn split_off(&mut self, i: usize, changed: Traits<'a>) {
        let (mut i, part) = (i, changed.range);
        if self.split(i, part.start()) {
            i += 1;
            self.check();
        }
        if self.split(i, part.end()) {
            self.check();
        }
        self.pieces[i] = changed;
    }
    /// Splits piece `i` at `at`, unless that is one of its ends.
    fn split(&mut self, i: usize, at: Vpn) -> bool {
        let piece = self.pieces[i];
        let whole = piece.range;
        let inside = whole.start() < at && at < whole.end();
        if inside {
            self.pieces[i] = cut(piece, span(whole.start(), at));
            self.pieces.insert(i + 1, cut(piece, span(at, whole.end())));
        }
        inside
    }
    /// Takes the pieces in `range` out (`vms_gather_munmap_vmas`): only a piece that is left in two
    /// is checked against the limit.
    pub(in crate::mm) fn unmap(&mut self, range: VpnRange) {
        for at in [range.start(), range.end()] {
            if let Some(i) = self.find(at) {
                let whole = self.pieces[i].range;
                let around = whole.start() < range.start() && range.end() < whole.end();
                if self.split(i, at) && around && at == range.start() {
                    self.check();
                }
            }
        }
        self.pieces
            .retain(|piece| piece.range.intersect(range).is_none());
    }
    /// Adds a range, as part of its neighbours if they agree (`vma_merge_new_range`).
    pub(in crate::mm) fn map(&mut self, new: Traits<'a>, merges: bool) {
        let at = self.find(new.range.start()).unwrap_or(self.pieces.len());
        let merges = merges && !new.flags.intersects(VmFlags::SPECIAL);
        let below = at.checked_sub(1).filter(|_| merges);
        let (left, right) = self.mergeable(&new, below, merges.then_some(at));
        let first = at - usize::from(left.is_some());
        let end = at + usize::from(right.is_some());
        self.pieces
            .splice(first..end, [join([left, Some(new), right])]);
    }
}

fn span(start: Vpn, end: Vpn) -> VpnRange {
    VpnRange::new(start, end).expect("the start lies below the end")
}

/// Returns the properties of part of a piece.
fn cut<'a>(piece: Traits<'a>, range: VpnRange) -> Traits<'a> {
    let pgoff = piece.pgoff + (range.start().0 - piece.range.start().0);
    Traits {
        range,
        pgoff,
        ..piece
    }
}

/// Returns the piece that neighbours become.
fn join<'a>(parts: [Option<Traits<'a>>; 3]) -> Traits<'a> {
    let mut parts = parts.into_iter().flatten();
    let first = parts.next().expect("the range itself is among them");
    parts.fold(first, |all, next| Traits {
        range: span(all.range.start(), next.range.end()),
        flags: all.flags | (next.flags & VmFlags::STICKY),
        anon: all.anon.or(next.anon),
        ..all
    })
}
