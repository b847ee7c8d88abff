//! A loom model of the lock that devices take for a hit.

use crate::sync::{RaceProbe, spin_lock::SpinLock};
use std::sync::Arc;

/// Adds to the value if the lock is free, and returns by how much.
fn add(lock: &SpinLock<(u32, RaceProbe)>, mistake: bool) -> u32 {
    let Some(mut guard) = lock.try_lock() else {
        return 0;
    };
    guard.1.write();
    guard.0 += 1;
    if mistake {
        guard.give_back_unordered();
    }
    1
}

/// Two threads add to a value. The mistake: one gives the lock back by a store that orders nothing.
pub(super) fn spin_lock_of_two(mistake: bool) {
    let lock = Arc::new(SpinLock::new((0, RaceProbe::new())));
    let other = Arc::clone(&lock);
    let other = loom::thread::spawn(move || add(&other, mistake));
    let added = add(&lock, false) + other.join().unwrap();
    let guard = lock.try_lock().expect("given back by both");
    assert_eq!(guard.0, added);
}
