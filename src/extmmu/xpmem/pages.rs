//! A sparse table by page, 64 pages to a group. An operation on a range costs as much as the range
//! has values, not as many pages.

use crate::{
    addr::{Vpn, VpnRange},
    notifier::{RemovedEntries, ShadowEntry, ShadowStore},
};
use std::collections::BTreeMap;

/// The number of pages in a group.
const GROUP: u64 = 64;

struct Group<T> {
    /// A bit for each slot in use.
    present: u64,
    slots: [Option<T>; GROUP as usize],
}

impl<T> Default for Group<T> {
    fn default() -> Self {
        Self {
            present: 0,
            slots: [const { None }; GROUP as usize],
        }
    }
}

/// A table by page.
pub(super) struct Pages<T> {
    groups: BTreeMap<u64, Box<Group<T>>>,
    len: usize,
}

impl<T> Default for Pages<T> {
    fn default() -> Self {
        Self {
            groups: BTreeMap::new(),
            len: 0,
        }
    }
}

fn slot(page: Vpn) -> usize {
    usize::try_from(page.0 % GROUP).expect("small")
}

/// Returns the bits of a group that are in a range.
fn mask(group: u64, range: VpnRange) -> u64 {
    let first = group * GROUP;
    let below = |at: Vpn| match at.0.saturating_sub(first) {
        n @ 0..GROUP => (1_u64 << n) - 1,
        _ => u64::MAX,
    };
    below(range.end()) & !below(range.start())
}

/// Iterates over the places of the bits that are set.
fn places(mut bits: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let place = bits.trailing_zeros() as usize;
        // Clears the lowest bit.
        bits &= bits.wrapping_sub(1);
        (place < 64).then_some(place)
    })
}

impl<T> Pages<T> {
    /// Returns the number of pages with a value.
    pub(super) fn len(&self) -> usize {
        self.len
    }
    pub(super) fn get(&self, page: Vpn) -> Option<&T> {
        self.groups.get(&(page.0 / GROUP))?.slots[slot(page)].as_ref()
    }
    /// Sets the value of a page, and returns the old one.
    pub(super) fn put(&mut self, page: Vpn, value: T) -> Option<T> {
        let group = self.groups.entry(page.0 / GROUP).or_default();
        group.present |= 1 << slot(page);
        let old = group.slots[slot(page)].replace(value);
        self.len += usize::from(old.is_none());
        old
    }
    fn groups_in(&self, range: VpnRange) -> impl Iterator<Item = (&Group<T>, u64)> {
        let (first, last) = (range.start().0 / GROUP, (range.end().0 - 1) / GROUP);
        let groups = self.groups.range(first..=last);
        groups.map(move |(nth, group)| (&**group, group.present & mask(*nth, range)))
    }
    /// Returns true if a page of the range has a value.
    pub(super) fn any_in(&self, range: VpnRange) -> bool {
        self.groups_in(range).any(|(_, bits)| bits != 0)
    }
    /// Calls `visit` with the values of the range's pages, in ascending order.
    pub(super) fn show(&self, range: VpnRange, visit: &mut dyn FnMut(&T)) {
        for (group, bits) in self.groups_in(range) {
            let values = places(bits).filter_map(|place| group.slots[place].as_ref());
            values.for_each(&mut *visit);
        }
    }
    /// Removes the values of the range's pages. `taken` is called for each group, with the number
    /// of its values and an iterator over them.
    pub(super) fn take_in(
        &mut self,
        range: VpnRange,
        mut taken: impl FnMut(usize, &mut dyn Iterator<Item = T>),
    ) {
        let (first, last) = (range.start().0 / GROUP, (range.end().0 - 1) / GROUP);
        let mut emptied = Vec::new();
        for (nth, group) in self.groups.range_mut(first..=last) {
            let bits = group.present & mask(*nth, range);
            let count = bits.count_ones() as usize;
            let slots = &mut group.slots;
            taken(
                count,
                &mut places(bits).filter_map(|place| slots[place].take()),
            );
            group.present &= !bits;
            self.len -= count;
            if group.present == 0 {
                emptied.push(*nth);
            }
        }
        for nth in emptied {
            self.groups.remove(&nth);
        }
    }
}

/// The frame table of an owner: entries of one page each, by page.
impl ShadowStore for Pages<ShadowEntry> {
    type Key = Vpn;
    fn insert(&mut self, page: Vpn, entry: ShadowEntry) -> RemovedEntries {
        self.put(page, entry).into_iter().collect()
    }
    fn get(&self, page: &Vpn) -> Option<&ShadowEntry> {
        self.get(*page)
    }
    fn remove(&mut self, page: &Vpn) -> Option<ShadowEntry> {
        let mut gone = RemovedEntries::new();
        self.remove_range(VpnRange::single(*page), &mut gone);
        gone.pop()
    }
    fn remove_range(&mut self, range: VpnRange, gone: &mut RemovedEntries) {
        self.take_in(range, |count, entries| {
            gone.reserve(count);
            gone.extend(entries);
        });
    }
    fn for_each(&self, visit: &mut dyn FnMut(&ShadowEntry)) {
        self.show(VpnRange::ALL, visit);
    }
    fn for_each_in(&self, range: VpnRange, visit: &mut dyn FnMut(&ShadowEntry)) {
        self.show(range, visit);
    }
}

#[cfg(test)]
mod tests {
    use super::Pages;
    use crate::addr::{Vpn, VpnRange};

    #[test]
    fn a_range_has_what_its_pages_have() {
        let mut pages = Pages::default();
        for n in [3, 63, 64, 127, 128, 200] {
            assert_eq!(pages.put(Vpn(n), n), None);
        }
        assert_eq!(pages.put(Vpn(64), 65), Some(64));
        assert_eq!((pages.get(Vpn(64)), pages.get(Vpn(65))), (Some(&65), None));
        let range = |a, b| VpnRange::new(Vpn(a), Vpn(b)).unwrap();
        assert!(!pages.any_in(range(4, 63)));
        assert!(pages.any_in(range(4, 64)));
        let mut seen = Vec::new();
        pages.show(range(63, 129), &mut |n| seen.push(*n));
        assert_eq!(seen, [63, 65, 127, 128]);
        let mut gone = Vec::new();
        pages.take_in(range(63, 128), |_, taken| gone.extend(taken));
        assert_eq!((gone, pages.len()), (vec![63, 65, 127], 3));
        pages.take_in(VpnRange::ALL, |_, taken| taken.for_each(drop));
        assert_eq!(pages.len(), 0);
        assert!(pages.groups.is_empty());
    }
}
