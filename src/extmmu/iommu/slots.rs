//! Slots: pages of the IOTLB that devices take leases of without a lock.
//!
//! A slot has one word: flags, and counts of leases. To take a lease is to count it in the word,
//! and to end it is to count it out; each is one atomic operation. The order of the operations on
//! that word decides all races of a device with a window:
//!
//! * A window sets [`CLOSED`] first, and no lease is taken by a word that has it. So the counts
//!   that the window reads afterwards only fall.
//! * An end reads, in the operation that counts it out, that the slot is closed, and then notifies
//!   the window. A window that has not seen the end closed the slot before it.
//! * Accesses through a lease come before its end (release), and so before what the window does
//!   once it has seen the count (acquire).
//!
//! A slot changes its page only while it has no lease. A device looks at the page once more after
//! its lease is counted: what it finds then stays.
//!
//! Devices find the slots of the table, by the number of the page. A page whose set is full of
//! slots that have leases gets a slot beyond the table, which only the lock of the leases leads to.
//! No slot is freed while the IOMMU lives, so nothing keeps a device's slot but the IOMMU.

use crate::{
    addr::{Pfn, Vpn},
    sync::{
        AtomicPtr, AtomicU32, AtomicU64, OnceLock,
        Ordering::{AcqRel, Acquire, Relaxed, Release},
    },
};
use std::ops::Range;

/// One lease in the word, and one that windows wait for.
const ONE: u64 = 1;
const AWAITED: u64 = 1 << 24;
const COUNT: u64 = AWAITED - 1;
/// Leases may be taken.
const GOOD: u64 = 1 << 48;
/// The page may be written.
const WRITABLE: u64 = 1 << 49;
/// A window over the page is about to open.
const CLOSED: u64 = 1 << 50;
/// A window has opened: the slot is free when its last lease ends.
const REVOKED: u64 = 1 << 51;

const CHECKED: bool = cfg!(any(loom, shuttle));
/// Slots that a page may have in the table.
const WAYS: usize = if CHECKED { 1 } else { 4 };
const SETS: usize = if CHECKED { 2 } else { 256 };
pub(super) const TABLE: usize = WAYS * SETS;
/// The table, and pieces beyond it: the first has as many slots, the others twice as many as the
/// one before.
const PIECES: usize = 24;

/// The number of a slot.
pub(super) type SlotId = usize;

/// The word of a slot, as it was read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Word(u64);

impl Word {
    /// Returns true if a lease may be taken.
    fn gives(self, write: bool) -> bool {
        let wants = GOOD | if write { WRITABLE } else { 0 };
        // One more would be counted as a lease that windows wait for.
        let full = self.0 & COUNT == COUNT;
        self.0 & (wants | CLOSED | REVOKED) == wants && !full
    }
    /// Returns the number of leases.
    pub(super) fn leases(self) -> usize {
        (self.0 & COUNT) as usize
    }
    /// Returns true if a window that closes the slot has to wait.
    pub(super) fn is_awaited(self) -> bool {
        (self.0 / AWAITED) & COUNT > 0
    }
    /// Returns true if a window has opened over the page.
    pub(super) fn is_revoked(self) -> bool {
        self.0 & REVOKED != 0
    }
    /// Returns true if nothing leads to the slot any more.
    pub(super) fn is_free(self) -> bool {
        self.0 == 0
    }
}

/// The state of one page, on a cache line of its own.
#[repr(align(64))]
pub(super) struct Slot {
    pub(super) word: AtomicU64,
    page: AtomicU64,
    address: AtomicPtr<u8>,
    pfn: AtomicU32,
}

impl Slot {
    fn new() -> Self {
        Self {
            word: AtomicU64::new(0),
            page: AtomicU64::new(0),
            address: AtomicPtr::new(std::ptr::null_mut()),
            pfn: AtomicU32::new(0),
        }
    }
    /// Returns the word; accesses through leases that it does not count any more come before.
    pub(super) fn word(&self) -> Word {
        Word(self.word.load(Acquire))
    }
    /// Returns the page. It stays while there is a lease, and under the lock of the leases.
    pub(super) fn page(&self) -> Vpn {
        Vpn(self.page.load(Relaxed))
    }
    /// Returns the address of the first byte, which is as stable as the page.
    pub(super) fn address(&self) -> *mut u8 {
        self.address.load(Relaxed)
    }
    /// Returns the frame, which is as stable as the page.
    pub(super) fn pfn(&self) -> Pfn {
        Pfn(self.pfn.load(Relaxed))
    }
    /// Counts a lease, if the slot gives any. Returns false if it does not.
    #[inline]
    pub(super) fn count_lease(&self, write: bool, awaited: bool) -> bool {
        let one = one(awaited);
        let mut word = self.word.load(Relaxed);
        while Word(word).gives(write) {
            let counted = self
                .word
                .compare_exchange(word, word + one, Acquire, Relaxed);
            match counted {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
        false
    }
    /// Counts a lease out. Returns true if a window may wait for that, or the slot is revoked.
    #[inline]
    pub(super) fn count_out(&self, awaited: bool) -> bool {
        let before = self.word.fetch_sub(one(awaited), Release);
        before & (CLOSED | REVOKED) != 0
    }
    /// Counts a lease as one that windows do not wait for. Returns true if one may wait now.
    pub(super) fn count_unawaited(&self) -> bool {
        let before = self.word.fetch_sub(AWAITED, Release);
        before & CLOSED != 0
    }
    /// Counts a lease as one that windows wait for again.
    pub(super) fn count_awaited(&self) {
        self.word.fetch_add(AWAITED, Relaxed);
    }
    /// Makes it a slot of a page with a first lease. It is [claimed](Self::claim).
    pub(super) fn fill(&self, entry: &SlotEntry, awaited: bool) {
        self.page.store(entry.page.0, Relaxed);
        self.address.store(entry.first, Relaxed);
        self.pfn.store(entry.pfn.0, Relaxed);
        let rights = if entry.writable { WRITABLE } else { 0 };
        self.word.store(GOOD | rights | one(awaited), Release);
    }
    /// Takes the slot from its page if it has no lease and no window closes it. Nothing is done to
    /// a slot that is free.
    pub(super) fn claim(&self) -> bool {
        let word = self.word.load(Relaxed);
        if word & (COUNT | CLOSED | REVOKED) != 0 {
            return false;
        }
        word == 0
            || self
                .word
                .compare_exchange(word, 0, Acquire, Relaxed)
                .is_ok()
    }
    /// Allows writing as well.
    pub(super) fn make_writable(&self) {
        self.word.fetch_or(WRITABLE, Relaxed);
    }
    /// Takes no more leases from here on.
    pub(super) fn close(&self) {
        self.word.fetch_or(CLOSED, AcqRel);
    }
    /// Gives leases again, unless the slot is revoked.
    pub(super) fn open(&self) {
        self.word.fetch_and(!CLOSED, Release);
    }
    /// Marks a closed slot as revoked. Returns the word.
    pub(super) fn revoke(&self) -> Word {
        Word(self.word.fetch_or(REVOKED, AcqRel) | REVOKED)
    }
    /// Makes a slot free that has no leases and gives none.
    pub(super) fn free(&self) {
        self.word.store(0, Release);
    }
}

pub(super) fn one(awaited: bool) -> u64 {
    ONE + if awaited { AWAITED } else { 0 }
}

/// The page, frame and address that a slot is filled with.
pub(super) struct SlotEntry {
    pub(super) page: Vpn,
    pub(super) pfn: Pfn,
    pub(super) first: *mut u8,
    pub(super) writable: bool,
}

/// A device's attempt to take a lease.
pub(super) enum Taken {
    Lease(SlotId),
    /// None is given for this page without the lock.
    None,
    /// A lease of another page was counted, as the slot changed hands: it is to be ended.
    OfAnotherPage(SlotId),
}

/// All slots of an IOMMU.
pub(super) struct Slots([OnceLock<Box<[Slot]>>; PIECES]);

impl Slots {
    pub(super) fn new() -> Self {
        Self(std::array::from_fn(|_| OnceLock::new()))
    }
    #[inline]
    fn piece(&self, piece: usize, len: usize) -> &[Slot] {
        let make = || (0..len).map(|_| Slot::new()).collect();
        self.0[piece].get_or_init(make)
    }
    /// Returns a slot, and makes its piece if it has none.
    #[inline]
    pub(super) fn at(&self, id: SlotId) -> &Slot {
        let (piece, first) = match id / TABLE {
            0 => (0, 0),
            tables => {
                let before = tables.ilog2();
                (before as usize + 1, TABLE << before)
            }
        };
        &self.piece(piece, first.max(TABLE))[id - first]
    }
    /// Returns the slots of the table that a page may have.
    #[inline]
    pub(super) fn set_of(page: Vpn) -> Range<SlotId> {
        let number = page.0 ^ (page.0 >> SETS.ilog2()) ^ (page.0 >> (2 * SETS.ilog2()));
        let first = (number as usize % SETS) * WAYS;
        first..first + WAYS
    }
    /// Takes a lease of a page from a slot of the table, without a lock.
    #[inline]
    pub(super) fn take(&self, page: Vpn, write: bool, awaited: bool) -> Taken {
        let Some(table) = self.0[0].get() else {
            return Taken::None;
        };
        for id in Self::set_of(page) {
            let slot = &table[id];
            if slot.page() == page && slot.count_lease(write, awaited) {
                // The slot may have changed hands between the two; from here on it does not.
                return match slot.page() == page {
                    true => Taken::Lease(id),
                    false => Taken::OfAnotherPage(id),
                };
            }
        }
        Taken::None
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::{COUNT, GOOD, Pfn, Slot, SlotEntry, Slots, TABLE, Taken, Vpn};
    use crate::sync::Ordering::SeqCst;

    fn filled(writable: bool) -> Slot {
        let slot = Slot::new();
        let entry = SlotEntry {
            page: Vpn(3),
            pfn: Pfn(5),
            first: std::ptr::null_mut(),
            writable,
        };
        assert!(slot.claim());
        slot.fill(&entry, true);
        slot
    }

    #[test]
    fn a_slot_gives_leases_of_its_rights_until_it_is_closed() {
        let slot = filled(false);
        assert!(!slot.claim() && !slot.count_lease(true, true));
        assert!(slot.count_lease(false, false));
        assert_eq!(slot.word().leases(), 2);
        assert!(!slot.count_out(true) && !slot.word().is_awaited());
        slot.make_writable();
        assert!(slot.count_lease(true, true));
        slot.close();
        assert!(!slot.count_lease(false, true) && slot.word().is_awaited());
        assert!(slot.count_unawaited() && !slot.word().is_awaited());
        slot.count_awaited();
        slot.open();
        assert!(slot.count_lease(false, true));
        assert!(slot.revoke().is_revoked() && !slot.count_lease(false, true));
        for (n, awaited) in [true, true, false].into_iter().enumerate() {
            assert_eq!(slot.word().leases(), 3 - n);
            assert!(slot.count_out(awaited));
        }
        assert!(!slot.claim(), "a window makes it free");
        slot.free();
        assert!(slot.word().is_free() && slot.claim());
    }

    #[test]
    fn a_count_that_is_full_gives_no_lease() {
        let slot = filled(true);
        slot.word.store(GOOD | COUNT, SeqCst);
        assert!(!slot.count_lease(false, true));
        slot.word.store(GOOD | (COUNT - 1), SeqCst);
        assert!(slot.count_lease(false, true));
        assert_eq!(slot.word().leases() as u64, COUNT);
    }

    #[test]
    fn slots_beyond_the_table_have_numbers_that_follow() {
        let slots = Slots::new();
        assert!(matches!(slots.take(Vpn(0), false, true), Taken::None));
        let ids = [0, TABLE - 1, TABLE, 2 * TABLE - 1, 2 * TABLE, 5 * TABLE];
        let at: Vec<*const Slot> = ids.map(|id| std::ptr::from_ref(slots.at(id))).to_vec();
        let mut apart = at.clone();
        apart.sort_unstable();
        apart.dedup();
        assert_eq!(apart.len(), ids.len());
        assert_eq!(at[1].addr() - at[0].addr(), (TABLE - 1) * size_of::<Slot>());
        // Pages in a row lie in sets of their own, and those that lie apart by the table do too.
        assert_ne!(Slots::set_of(Vpn(0)), Slots::set_of(Vpn(1)));
        assert_ne!(Slots::set_of(Vpn(0)), Slots::set_of(Vpn(256)));
        assert!(Slots::set_of(Vpn(u64::MAX)).end <= TABLE);
    }
}
