//! The rule by which neighbouring ranges become one VMA: they agree in flags, object, page offset,
//! anonymous family and name (`is_mergeable_vma`, `is_mergeable_anon_vma`).

use crate::mm::{
    entry::flags::VmFlags,
    vma::{Vma, extras::Extras, userfault::same_userfault},
};
use crate::{addr::VpnRange, file::File, file::same_file, rmap::AnonLink};
use std::sync::Arc;

/// A reason why two neighbouring VMAs do not merge. [`Mm::merge_barriers`] returns all of them.
///
/// [`Mm::merge_barriers`]: crate::mm::Mm::merge_barriers
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MergeBarrier {
    /// Nothing is mapped in these pages between the two.
    Gap(VpnRange),
    /// The two differ in these flags.
    Flags(VmFlags),
    /// A VMA with one of these flags never merges.
    Special(VmFlags),
    /// The two map different objects, or one object by different opens of its file.
    Object,
    /// The upper VMA does not continue the lower one in its object. For private anonymous memory:
    /// one of the two was moved after its pages had been written.
    Offset {
        /// The page offset with which the upper VMA would continue the lower one.
        expected: u64,
        /// The page offset of the upper VMA.
        found: u64,
    },
    /// Private pages of both were written, and belong to two anonymous families.
    Families,
    /// A fork copied the written private pages of one of the two, while none of the other were
    /// written.
    Inherited,
    /// The two have different names.
    Name,
    /// The two have different policies ([`Mm::mbind`](crate::mm::Mm::mbind)).
    Policy,
    /// The object counts its mappings, so a merge removes none of them.
    Counted,
    /// The two are registered with different userfaultfds.
    Userfault,
}

/// The properties of a range of pages that decide about merging.
#[derive(Clone, Copy)]
pub(in crate::mm) struct Traits<'a> {
    pub(in crate::mm) range: VpnRange,
    pub(in crate::mm) pgoff: u64,
    pub(in crate::mm) flags: VmFlags,
    pub(in crate::mm) file: Option<&'a Arc<File>>,
    pub(in crate::mm) anon: Option<&'a AnonLink>,
    pub(in crate::mm) extras: &'a Extras,
    /// The object counts its mappings: a merge must not remove this one (`can_merge_remove_vma`).
    pub(in crate::mm) stays: bool,
}

impl<'a> Traits<'a> {
    #[inline]
    pub(in crate::mm) fn of(vma: &'a Vma) -> Self {
        Self {
            range: vma.range(),
            pgoff: vma.pgoff,
            flags: vma.flags,
            file: vma.file.as_ref(),
            anon: vma.anon_link(),
            extras: &vma.extras,
            stays: !vma.may_be_merged(),
        }
    }
    #[inline]
    fn pgoff_end(&self) -> u64 {
        self.pgoff.wrapping_add(self.range.pages())
    }
    /// Returns the flags in which the two differ, without those that a merged VMA collects.
    #[inline]
    fn other_flags(&self, other: &Self) -> VmFlags {
        (self.flags ^ other.flags) - VmFlags::STICKY
    }
    /// Returns the obstacle that the anonymous families of the two are.
    #[inline]
    fn family_barrier(&self, other: &Self) -> Option<MergeBarrier> {
        match (self.anon, other.anon) {
            (None, None) => None,
            // One side has pages, the other none: they may merge, unless those pages were inherited
            // by a fork.
            (Some(link), None) | (None, Some(link)) => {
                (!link.is_singular()).then_some(MergeBarrier::Inherited)
            }
            (Some(a), Some(b)) => {
                (!Arc::ptr_eq(a.node(), b.node())).then_some(MergeBarrier::Families)
            }
        }
    }
    /// Returns true if the two agree in everything but their place.
    #[inline]
    fn agrees(&self, other: &Self) -> bool {
        self.other_flags(other).is_empty()
            && same_file(self.file, other.file)
            && self.extras == other.extras
            && self.family_barrier(other).is_none()
    }
    /// Returns true if `prev` ends where this range starts, and can grow over it
    /// (`can_vma_merge_left`).
    #[inline]
    pub(in crate::mm) fn continues(&self, prev: &Self) -> bool {
        prev.range.end() == self.range.start()
            && prev.pgoff_end() == self.pgoff
            && self.agrees(prev)
    }
    /// Returns the VMA that ends where this range starts, if it can grow over the range.
    #[inline]
    pub(in crate::mm) fn left<'v>(&self, prev: Option<&'v Vma>) -> Option<&'v Vma> {
        prev.filter(|prev| self.continues(&Traits::of(prev)))
    }
    /// Returns the VMA that starts where this range ends, if it can grow over the range
    /// (`can_vma_merge_right`), together with `left`, which can do so from below.
    #[inline]
    pub(in crate::mm) fn right<'v>(
        &self,
        next: Option<&'v Vma>,
        left: Option<&Vma>,
    ) -> Option<&'v Vma> {
        next.filter(|next| {
            let next = Traits::of(next);
            next.continues(self) && left.is_none_or(|left| Traits::of(left).allows_beyond(&next))
        })
    }
    /// Returns true if this VMA, which can grow over the range between the two, can grow over the
    /// other as well: their families fit (`are_anon_vmas_compatible`), and the other may go.
    #[inline]
    pub(in crate::mm) fn allows_beyond(&self, other: &Self) -> bool {
        !other.stays
            && match (self.anon, other.anon) {
                (Some(a), Some(b)) => Arc::ptr_eq(a.node(), b.node()),
                _ => true,
            }
    }
    /// Returns each reason for which this VMA and the next one above are two.
    pub(in crate::mm) fn barriers(&self, next: &Self) -> Vec<MergeBarrier> {
        let special = (self.flags | next.flags) & VmFlags::SPECIAL;
        let other = self.other_flags(next);
        let (expected, found) = (self.pgoff_end(), next.pgoff);
        let gap = VpnRange::new(self.range.end(), next.range.start());
        let (ours, theirs) = (self.extras, next.extras);
        let reasons = [
            gap.map(MergeBarrier::Gap),
            (!other.is_empty()).then_some(MergeBarrier::Flags(other)),
            (!special.is_empty()).then_some(MergeBarrier::Special(special)),
            (!same_file(self.file, next.file) || !same_file(ours.device(), theirs.device()))
                .then_some(MergeBarrier::Object),
            (gap.is_none() && expected != found)
                .then_some(MergeBarrier::Offset { expected, found }),
            self.family_barrier(next),
            (ours.label() != theirs.label()).then_some(MergeBarrier::Name),
            (ours.policy() != theirs.policy()).then_some(MergeBarrier::Policy),
            next.stays.then_some(MergeBarrier::Counted),
            (!same_userfault(ours.userfault(), theirs.userfault()))
                .then_some(MergeBarrier::Userfault),
        ];
        reasons.into_iter().flatten().collect()
    }
}
