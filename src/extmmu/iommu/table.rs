//! The table of slots that lead to a page, under the lock of the leases: it fills slots and frees
//! them, and knows the pages that windows close.

use super::{
    kept::Kept,
    slots::{Slot, SlotEntry, SlotId, Slots, TABLE},
};
use crate::{
    addr::{Vpn, VpnRange},
    notifier::{Event, Translation},
};
use smallvec::SmallVec;
use std::collections::BTreeMap;

/// The end of a page's leases in a window.
pub(super) struct Revoked {
    pub(super) window: (VpnRange, Event),
    /// Keeps the frame from another owner while slices lead to it.
    pub(super) _kept: Option<Kept>,
}

/// The facts about a slot that has a page.
pub(super) struct Occupied {
    pub(super) translation: Translation,
    pub(super) revoked: Option<Revoked>,
}

/// A page and one of its slots.
type Key = (Vpn, SlotId);

#[derive(Default)]
pub(super) struct Table {
    occupied: BTreeMap<Key, Occupied>,
    /// Slots beyond the table of devices that were used and are free, and the number of all that
    /// were used.
    free: Vec<SlotId>,
    beyond: usize,
    /// Tells which slot of a set is filled next.
    turn: usize,
    /// Pages of which no leases are given, as windows over them are about to open.
    closing: Vec<VpnRange>,
}

impl Table {
    /// Returns the slots of pages in a range.
    pub(super) fn over(&self, range: VpnRange) -> impl Iterator<Item = (SlotId, &Occupied)> {
        let keys = (range.start(), 0)..(range.end(), 0);
        let there = self.occupied.range(keys);
        there.map(|((_, id), occupied)| (*id, occupied))
    }
    /// Returns all slots that have a page.
    pub(super) fn all(&self) -> impl Iterator<Item = (SlotId, &Occupied)> {
        let all = self.occupied.iter();
        all.map(|((_, id), occupied)| (*id, occupied))
    }
    /// Returns the facts about a slot of a page.
    pub(super) fn get(&self, page: Vpn, id: SlotId) -> Option<&Occupied> {
        self.occupied.get(&(page, id))
    }
    /// Returns true if a window over the page is about to open.
    pub(super) fn closes(&self, page: Vpn) -> bool {
        self.closing.iter().any(|range| range.contains(page))
    }
    /// Closes the slots of a range, and gives no others for it until it is
    /// [opened](Self::open).
    pub(super) fn close(&mut self, slots: &Slots, range: VpnRange) {
        self.closing.push(range);
        for (id, _) in self.over(range) {
            slots.at(id).close();
        }
    }
    /// Ends a [`close`](Self::close): slots that it left, and no other closes, give leases again.
    pub(super) fn open(&mut self, slots: &Slots, range: VpnRange) {
        let mark = self.closing.iter().position(|closes| *closes == range);
        self.closing.swap_remove(mark.expect("marked by `close`"));
        for (id, _) in self.over(range) {
            let slot = slots.at(id);
            if !slot.word().is_revoked() && !self.closes(slot.page()) {
                slot.open();
            }
        }
    }
    /// Counts a lease in a slot of the page that has this translation, or fills one.
    pub(super) fn take(
        &mut self,
        slots: &Slots,
        (translation, first): (Translation, *mut u8),
        (write, awaited): (bool, bool),
    ) -> SlotId {
        let (page, writable) = (translation.range().start(), translation.is_writable());
        let same = |had: &Translation| {
            (had.pfn(), had.generation()) == (translation.pfn(), translation.generation())
        };
        let mut of_page = self.occupied.range_mut((page, 0)..(page.plus(1), 0));
        let shared = of_page.find_map(|((_, id), occupied)| {
            if occupied.revoked.is_some() || !same(&occupied.translation) {
                return None;
            }
            let slot = slots.at(*id);
            if writable && !occupied.translation.is_writable() {
                occupied.translation = translation;
                slot.make_writable();
            }
            slot.count_lease(write, awaited).then_some(*id)
        });
        shared.unwrap_or_else(|| {
            let (id, slot) = self.claim(slots, page);
            let occupied = Occupied {
                translation,
                revoked: None,
            };
            self.occupied.insert((page, id), occupied);
            let entry = SlotEntry {
                page,
                pfn: translation.pfn(),
                first,
                writable,
            };
            slot.fill(&entry, awaited);
            id
        })
    }
    /// Finds a slot for a page: one of its set that has no lease, or one beyond the table.
    fn claim<'s>(&mut self, slots: &'s Slots, page: Vpn) -> (SlotId, &'s Slot) {
        let set = Slots::set_of(page);
        self.turn += 1;
        let (ways, turn) = (set.len(), self.turn);
        let in_turn = (0..ways).map(|n| set.start + (turn + n) % ways);
        let free = in_turn.clone().filter(|id| slots.at(*id).word().is_free());
        for id in free.chain(in_turn) {
            let slot = slots.at(id);
            let had = slot.page();
            if slot.claim() {
                self.occupied.remove(&(had, id));
                return (id, slot);
            }
        }
        let id = self.free.pop().unwrap_or_else(|| {
            self.beyond += 1;
            TABLE + self.beyond - 1
        });
        (id, slots.at(id))
    }
    /// Makes a slot free whose last lease has ended, if it is not for other devices to take.
    /// Returns facts that are to be dropped without the lock.
    pub(super) fn settle(&mut self, slots: &Slots, id: SlotId) -> Option<Occupied> {
        let slot = slots.at(id);
        let word = slot.word();
        let ends = word.is_revoked() || id >= TABLE;
        if word.leases() > 0 || word.is_free() || !ends {
            return None;
        }
        self.free(slots, id)
    }
    fn free(&mut self, slots: &Slots, id: SlotId) -> Option<Occupied> {
        let slot = slots.at(id);
        let page = slot.page();
        slot.free();
        if id >= TABLE {
            self.free.push(id);
        }
        self.occupied.remove(&(page, id))
    }
    /// Takes the closed slots of a range from devices. Those that have leases keep what `revoked`
    /// makes of their translation until the last one ends. Returns facts that are to be dropped
    /// without the lock.
    #[must_use]
    pub(super) fn revoke(
        &mut self,
        slots: &Slots,
        range: VpnRange,
        revoked: impl Fn(Translation) -> Option<Revoked>,
    ) -> Vec<Occupied> {
        let good = self.over(range).map(|(id, _)| id);
        let good: SmallVec<[SlotId; 8]> = good
            .filter(|id| !slots.at(*id).word().is_revoked())
            .collect();
        let mut settled = Vec::new();
        for id in good {
            let slot = slots.at(id);
            let held = slot.word().leases() > 0;
            if held && let Some(occupied) = self.occupied.get_mut(&(slot.page(), id)) {
                occupied.revoked = revoked(occupied.translation);
            }
            // A lease that ends meanwhile finds the slot closed, and asks for the lock.
            if slot.revoke().leases() == 0 {
                let freed = self.free(slots, id);
                settled.extend(freed.filter(|occupied| occupied.revoked.is_some()));
            }
        }
        settled
    }
}
