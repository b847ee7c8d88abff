//! Addresses, each of which can be taken once at a time.

use parking_lot::Mutex;
use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
};

/// The addresses that are taken, in the whole process. Model checkers do not see it, as they do not
/// see [`IdSource`](super::IdSource): no two of their threads take one address.
#[derive(Debug)]
pub(crate) struct Addresses(Mutex<BTreeSet<usize>>);

/// An address that is taken until it is given back, or this is dropped.
#[derive(Debug)]
pub(crate) struct TakenAddress {
    of: &'static Addresses,
    address: usize,
    taken: AtomicBool,
}

impl Addresses {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(BTreeSet::new()))
    }
    /// Takes an address; `None` if it is taken.
    pub(crate) fn take<T: ?Sized>(&'static self, at: *const T) -> Option<TakenAddress> {
        let address = at.addr();
        self.0.lock().insert(address).then(|| TakenAddress {
            of: self,
            address,
            taken: AtomicBool::new(true),
        })
    }
}

impl TakenAddress {
    /// Gives the address back: from here on it can be taken again.
    pub(crate) fn give_back(&self) {
        if self.taken.swap(false, Ordering::Relaxed) {
            self.of.0.lock().remove(&self.address);
        }
    }
}

impl Drop for TakenAddress {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::Addresses;

    #[test]
    fn an_address_is_taken_until_it_is_given_back() {
        static TAKEN: Addresses = Addresses::new();
        let (a, b) = (1_u64, 2_u64);
        let first = TAKEN.take(&raw const a).unwrap();
        assert!(TAKEN.take(&raw const a).is_none());
        let other = TAKEN.take(&raw const b).unwrap();
        first.give_back();
        let again = TAKEN.take(&raw const a).unwrap();
        // This value gave the address back before, so it belongs to another value now.
        drop(first);
        assert!(TAKEN.take(&raw const a).is_none());
        drop((again, other));
        assert!(TAKEN.take(&raw const a).is_some());
    }
}
