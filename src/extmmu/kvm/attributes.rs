//! Memory attributes: the guest frames that are private to the guest (`mem_attr_array`).

use super::gfn::Gfn;
use crate::sync::RwLock;
use bitflags::bitflags;
use std::collections::BTreeMap;

bitflags! {
    /// The attributes of guest frames (`KVM_MEMORY_ATTRIBUTE_*`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct MemoryAttributes: u64 {
        /// The guest has the frame from its guest file, and the process does not see it.
        const PRIVATE = 1 << 3;
    }
}

/// The kind of a guest frame, or of an access to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageKind {
    /// The process and the guest share the frame.
    Shared,
    /// The frame is the guest's alone.
    Private,
}

impl PageKind {
    pub(super) fn of(attributes: MemoryAttributes) -> Self {
        match attributes.contains(MemoryAttributes::PRIVATE) {
            true => Self::Private,
            false => Self::Shared,
        }
    }
    /// Returns the other kind.
    pub(super) fn other(self) -> Self {
        match self {
            Self::Shared => Self::Private,
            Self::Private => Self::Shared,
        }
    }
}

/// The moment at which a fault began: sequences and slots, read before anything else.
///
/// Whatever a fault finds out after its stamp holds when the stamp is checked under the lock that
/// the entry goes in. So attributes are told only against a stamp.
#[derive(Debug)]
pub(super) struct Stamp {
    /// The sequence of the gate of the process's page, if a slot has one.
    pub(super) process: u64,
    /// The sequence of the guest files' lock.
    pub(super) guest: u64,
    /// The generation of the slots that the fault looks in.
    pub(super) slots: u64,
}

/// The guest frames that are private.
#[derive(Debug, Default)]
pub(super) struct Attributes(RwLock<PrivateRanges>);

/// Ranges that do not touch: the first frame and the end.
#[derive(Debug, Default)]
struct PrivateRanges(BTreeMap<u64, u64>);

impl Attributes {
    /// Returns the kind of a frame, for a fault that began at the stamp.
    pub(super) fn kind(&self, gfn: Gfn, _: &Stamp) -> PageKind {
        let is_private = self.0.read().contains(gfn.0);
        match is_private {
            true => PageKind::Private,
            false => PageKind::Shared,
        }
    }
    /// Returns true if all frames of `[first, end)` are of that kind
    /// (`kvm_range_has_memory_attributes`).
    pub(super) fn all_are(&self, kind: PageKind, first: Gfn, end: Gfn) -> bool {
        let held = self.0.read();
        let mut private = held.within(first.0, end.0);
        match kind {
            PageKind::Shared => private.next().is_none(),
            PageKind::Private => private.next() == Some((first.0, end.0)),
        }
    }
    /// Returns the private parts of `[first, end)`.
    pub(super) fn private(&self, first: Gfn, end: Gfn) -> Vec<(Gfn, Gfn)> {
        let held = self.0.read();
        let parts = held.within(first.0, end.0);
        parts.map(|(s, e)| (Gfn(s), Gfn(e))).collect()
    }
    /// Makes the frames of `[first, end)` of one kind. The caller has a window open over them.
    pub(super) fn set(&self, kind: PageKind, first: Gfn, end: Gfn) {
        let mut held = self.0.write();
        held.remove(first.0, end.0);
        if kind == PageKind::Private {
            held.insert(first.0, end.0);
        }
    }
}

impl PrivateRanges {
    fn contains(&self, gfn: u64) -> bool {
        let below = self.0.range(..=gfn).next_back();
        below.is_some_and(|(_, end)| gfn < *end)
    }
    /// Iterates over the parts in `[first, end)`, ascending.
    fn within(&self, first: u64, end: u64) -> impl Iterator<Item = (u64, u64)> {
        let below = self.0.range(..first).next_back();
        let ranges = below.into_iter().chain(self.0.range(first..end));
        ranges
            .map(move |(s, e)| (first.max(*s), end.min(*e)))
            .filter(|(s, e)| s < e)
    }
    fn remove(&mut self, first: u64, end: u64) {
        let parts: Vec<(u64, u64)> = self.within(first, end).collect();
        for (s, e) in parts {
            let (start, old_end) = self.0.range(..=s).next_back().expect("it has the part");
            let (start, old_end) = (*start, *old_end);
            self.0.remove(&start);
            let rests = [(start, s), (e, old_end)];
            self.0.extend(rests.into_iter().filter(|(s, e)| s < e));
        }
    }
    /// Adds a range that has no part in the set, and joins it with its neighbours.
    fn insert(&mut self, mut first: u64, mut end: u64) {
        if let Some((s, _)) = self
            .0
            .range(..first)
            .next_back()
            .filter(|(_, e)| **e == first)
        {
            first = *s;
        }
        if let Some(e) = self.0.remove(&end) {
            end = e;
        }
        self.0.insert(first, end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_those_of_a_set_of_frames() {
        const FRAMES: u64 = 24;
        let attributes = Attributes::default();
        let mut model = [PageKind::Shared; FRAMES as usize];
        let mut x = 7_u64;
        for _ in 0..2000 {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let first = (x >> 33) % FRAMES;
            let end = first + 1 + (x >> 43) % (FRAMES - first);
            let kind = match x >> 60 & 1 {
                0 => PageKind::Shared,
                _ => PageKind::Private,
            };
            attributes.set(kind, Gfn(first), Gfn(end));
            for gfn in first..end {
                model[gfn as usize] = kind;
            }
            let stamp = Stamp {
                process: 0,
                guest: 0,
                slots: 0,
            };
            for gfn in 0..FRAMES {
                assert_eq!(attributes.kind(Gfn(gfn), &stamp), model[gfn as usize]);
                for end in gfn + 1..=FRAMES {
                    let part = &model[gfn as usize..end as usize];
                    for kind in [PageKind::Shared, PageKind::Private] {
                        let all = part.iter().all(|k| *k == kind);
                        assert_eq!(attributes.all_are(kind, Gfn(gfn), Gfn(end)), all);
                    }
                }
            }
        }
    }
}
