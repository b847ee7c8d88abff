//! The leases of this thread, by seat and by I/O address.
//!
//! Guarantee: a seat has one lease at a time, and leads to it as long as an iterator or a slice has
//! it. No other thread is led to it.

use super::lease::Lease;
use crate::sync::thread_local;
use smallvec::SmallVec;
use std::{
    cell::RefCell,
    rc::{Rc, Weak},
};

/// The leases of a thread, of all IOMMUs.
#[derive(Default)]
pub(super) struct OwnLeases {
    seats: Vec<Weak<Lease>>,
    free: Vec<usize>,
    /// The number of leases that the thread has had.
    had: u64,
    /// The seat of the lease that a slice was made of last.
    noted: usize,
    /// IOMMUs whose windows wait for no lease of this thread, each as often as it was put here.
    asking: Vec<u64>,
}

// The macro of loom accepts no constants.
#[allow(clippy::missing_const_for_thread_local, reason = "loom")]
mod local {
    use super::{OwnLeases, RefCell, thread_local};
    thread_local!(pub(super) static OWN: RefCell<OwnLeases> = RefCell::default());
}

/// Runs `f` on the leases of this thread; `f` calls nothing that asks for them. Returns `None` if
/// the thread ends and has destroyed them.
#[inline]
pub(super) fn own<T>(f: impl FnOnce(&mut OwnLeases) -> T) -> Option<T> {
    local::OWN.try_with(|own| f(&mut own.borrow_mut())).ok()
}

impl OwnLeases {
    /// Adds the lease that `make` makes of a seat and a number.
    #[inline]
    pub(super) fn add(&mut self, make: impl FnOnce(usize, u64) -> Lease) -> Rc<Lease> {
        self.had += 1;
        let seat = self.free.pop().unwrap_or(self.seats.len());
        let lease = Rc::new(make(seat, self.had));
        let weak = Rc::downgrade(&lease);
        match self.seats.get_mut(seat) {
            Some(place) => *place = weak,
            None => self.seats.push(weak),
        }
        lease
    }
    /// Gives the seat of a lease free.
    #[inline]
    pub(super) fn remove(&mut self, lease: &Lease) {
        self.seats[lease.seat] = Weak::new();
        self.free.push(lease.seat);
    }
    /// Returns the lease on a seat, if it is of this IOMMU.
    #[inline]
    fn of_seat(&self, of: u64, seat: usize) -> Option<Rc<Lease>> {
        let lease = self.seats.get(seat)?.upgrade()?;
        (lease.of == of).then_some(lease)
    }
    /// Returns the lease on a seat, of which a slice is about to be made.
    #[inline]
    pub(super) fn for_slice(&mut self, of: u64, seat: usize) -> Option<Rc<Lease>> {
        self.noted = seat;
        self.of_seat(of, seat)
    }
    /// Returns the lease of the byte at an I/O address: the one that a slice was made of last, or
    /// else the latest.
    #[inline]
    pub(super) fn at(&self, of: u64, iova: u64) -> Option<Rc<Lease>> {
        let noted = self.of_seat(of, self.noted);
        let noted = noted.filter(|lease| lease.has(iova));
        noted.or_else(|| {
            let there = self.all(of).filter(|lease| lease.has(iova));
            there.max_by_key(|lease| lease.number)
        })
    }
    fn all(&self, of: u64) -> impl Iterator<Item = Rc<Lease>> {
        let all = self.seats.iter().filter_map(Weak::upgrade);
        all.filter(move |lease| lease.of == of)
    }
    /// Returns true if windows wait for no lease of this thread.
    #[inline]
    pub(super) fn asks(&self, of: u64) -> bool {
        self.asking.contains(&of)
    }
    /// Notes that the thread waits for memory or for windows. Returns its leases; `None`, and
    /// nothing is noted, if it has none.
    pub(super) fn begin_to_ask(&mut self, of: u64) -> Option<SmallVec<[Rc<Lease>; 8]>> {
        let leases: SmallVec<_> = self.all(of).collect();
        if leases.is_empty() {
            return None;
        }
        self.asking.push(of);
        Some(leases)
    }
    /// Notes that a wait is over. Returns the leases, if it was the only one of the thread.
    pub(super) fn end_asking(&mut self, of: u64) -> SmallVec<[Rc<Lease>; 8]> {
        if let Some(note) = self.asking.iter().rposition(|asks| *asks == of) {
            self.asking.remove(note);
        }
        if self.asks(of) {
            return SmallVec::new();
        }
        self.all(of).collect()
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::{super::lease::Part, Lease, OwnLeases, Rc};
    use crate::{addr::Vpn, notifier::Access};
    use std::cell::Cell;

    fn lease(own: &mut OwnLeases, of: u64, iova: u64) -> Rc<Lease> {
        own.add(|seat, number| Lease {
            seat,
            number,
            of,
            slot: 0,
            part: Part {
                iova,
                page: Vpn(0),
                offset: 0,
                len: 8,
            },
            access: Access::Read,
            address: std::ptr::null_mut(),
            awaited: Cell::new(true),
            iterated: Cell::new(true),
        })
    }

    #[test]
    fn leases_are_found_by_seat_and_by_address() {
        let mut own = OwnLeases::default();
        let (first, again) = (lease(&mut own, 1, 100), lease(&mut own, 1, 100));
        let other = lease(&mut own, 2, 100);
        let found = |own: &mut OwnLeases, of, at| own.at(of, at).map(|lease| lease.number);
        assert_eq!(found(&mut own, 1, 107), Some(1), "seat 0 was noted");
        assert!(own.for_slice(1, other.seat).is_none(), "of another IOMMU");
        assert_eq!(found(&mut own, 1, 107), Some(2), "the latest");
        assert_eq!(found(&mut own, 1, 108), None);
        assert!(Rc::ptr_eq(&own.for_slice(1, first.seat).unwrap(), &first));
        assert_eq!(found(&mut own, 1, 100), Some(1), "the one that was noted");
        own.remove(&first);
        assert_eq!(found(&mut own, 1, 100), Some(2));
        let next = lease(&mut own, 1, 200);
        assert_eq!((next.seat, next.number), (first.seat, 4));
        // A lease without a holder is not found.
        drop(again);
        assert_eq!(found(&mut own, 1, 100), None);
        assert!(own.for_slice(1, 99).is_none());
    }

    #[test]
    fn a_thread_asks_as_long_as_one_of_its_waits_lasts() {
        let mut own = OwnLeases::default();
        assert!(own.begin_to_ask(1).is_none(), "it has no lease");
        let kept = lease(&mut own, 1, 0);
        assert_eq!(own.begin_to_ask(1).unwrap().len(), 1);
        assert_eq!(own.begin_to_ask(1).unwrap().len(), 1);
        assert!(own.asks(1) && !own.asks(2));
        assert!(own.end_asking(1).is_empty() && own.asks(1));
        assert_eq!(own.end_asking(1).len(), 1);
        assert!(!own.asks(1));
        drop(kept);
    }
}
