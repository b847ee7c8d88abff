//! Tests of walks, removals and destruction.

use super::EpochList;
use crate::ctx::Epoch;
use crossbeam_epoch::LocalHandle;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

struct Counted(u32, Arc<AtomicUsize>);
impl Drop for Counted {
    fn drop(&mut self) {
        self.1.fetch_add(1, SeqCst);
    }
}

fn remove<T: Send + Sync + 'static>(
    list: &EpochList<T>,
    local: &LocalHandle,
    fits: impl FnMut(&T) -> bool,
) -> bool {
    let unlinked = list.unlink(&local.pin(), fits);
    let found = unlinked.is_some();
    unlinked
        .into_iter()
        .for_each(|u| u.wait().retire(&local.pin()));
    found
}

#[test]
fn the_last_put_in_is_met_first_and_removal_takes_one() {
    let epoch = Epoch::new();
    let local = epoch.register();
    let list = EpochList::<_>::new(epoch.clone(), ());
    let guard = local.pin();
    for n in 0..4 {
        list.push(n, &guard);
    }
    assert!(remove(&list, &local, |n| *n == 2));
    assert!(!remove(&list, &local, |n| *n == 2));
    let mut met = Vec::new();
    list.for_each(&guard, |n| met.push(*n));
    assert_eq!(met, [3, 1, 0]);
}

#[test]
fn a_removed_node_stays_for_those_who_pinned_before_and_goes_afterwards() {
    let drops = Arc::new(AtomicUsize::new(0));
    let epoch = Epoch::new();
    let (walker, writer) = (epoch.register(), epoch.register());
    let list = EpochList::<_>::new(epoch.clone(), ());
    for n in 0..3 {
        list.push(Counted(n, Arc::clone(&drops)), &writer.pin());
    }
    let pinned = walker.pin();
    let mut met = Vec::new();
    list.for_each(&pinned, |c| {
        // Removed while the walker is on it: the walk continues.
        remove(&list, &writer, |other| other.0 == c.0);
        met.push(c.0);
    });
    assert_eq!((met, drops.load(SeqCst)), (vec![2, 1, 0], 0));
    drop(pinned);
    for _ in 0..512 {
        writer.pin().flush();
    }
    drop((walker, writer, list));
    assert_eq!(drops.load(SeqCst), 3);
}

#[test]
fn dropping_the_list_drops_what_is_in_it_once() {
    let drops = Arc::new(AtomicUsize::new(0));
    let epoch = Epoch::new();
    let local = epoch.register();
    let list = EpochList::<_>::new(epoch.clone(), ());
    for n in 0..3 {
        list.push(Counted(n, Arc::clone(&drops)), &local.pin());
    }
    drop(list);
    assert_eq!(drops.load(SeqCst), 3);
}

#[test]
#[should_panic(expected = "another machine's epoch")]
fn a_foreign_pin_is_refused() {
    let list = EpochList::<_>::new(Epoch::new(), ());
    let other = Epoch::new();
    let foreign = other.register();
    list.push(1, &foreign.pin());
}

#[test]
fn writers_and_walkers_meet_everyone_who_stays() {
    let epoch = Epoch::new();
    let list = EpochList::<_>::new(epoch.clone(), ());
    list.push(Counted(1000, Arc::default()), &epoch.register().pin());
    let rounds = if cfg!(miri) { 20 } else { 2000 };
    std::thread::scope(|s| {
        for lane in 0..2_u32 {
            let (list, epoch) = (&list, &epoch);
            s.spawn(move || {
                let local = epoch.register();
                for _ in 0..rounds {
                    list.push(Counted(lane, Arc::default()), &local.pin());
                    assert!(remove(list, &local, |c| c.0 == lane));
                }
            });
        }
        let local = epoch.register();
        for _ in 0..rounds {
            let mut stayed = 0;
            list.for_each(&local.pin(), |c| stayed += u32::from(c.0 == 1000));
            assert_eq!(stayed, 1);
        }
    });
}
