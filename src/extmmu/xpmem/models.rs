//! Loom model of a recall against a fault: each, once counted in, keeps the other out.

use super::gatekeeper::Gatekeeper;
use crate::{
    notifier::models::run,
    sync::{AtomicU64, Mutex, Ordering},
};
use std::sync::Arc;

#[derive(Default)]
struct Shared {
    keeper: Gatekeeper,
    frame: AtomicU64,
    /// The entry of the partition.
    remote: Mutex<Option<u64>>,
}

/// The mistake: the fault lets recalls go on before it has entered its page.
fn recall_against_fault(mistake: bool) {
    let shared = Arc::new(Shared::default());
    let s = Arc::clone(&shared);
    let other = loom::thread::spawn(move || {
        let blocked = s.keeper.block();
        let found = s.frame.load(Ordering::Acquire);
        let blocked = (!mistake).then_some(blocked);
        *s.remote.lock() = Some(found);
        drop(blocked);
    });
    shared.keeper.begin_recall();
    *shared.remote.lock() = None;
    shared.frame.store(1, Ordering::Release);
    if !mistake {
        assert_eq!(*shared.remote.lock(), None, "an entry inside a recall");
    }
    shared.keeper.end_recall();
    other.join().unwrap();
    let held = *shared.remote.lock();
    let frame = shared.frame.load(Ordering::Acquire);
    assert!(held.is_none_or(|f| f == frame), "stale entry {held:?}");
    assert_eq!(shared.keeper.count(), 0);
}

/// Two recalls and a fault. A lost wake-up would be a deadlock, which loom finds.
fn nobody_sleeps_on() {
    let shared = Arc::new(Shared::default());
    let threads: Vec<_> = (0..2)
        .map(|_| {
            let s = Arc::clone(&shared);
            loom::thread::spawn(move || {
                s.keeper.begin_recall();
                s.keeper.end_recall();
            })
        })
        .collect();
    drop(shared.keeper.block());
    threads.into_iter().for_each(|t| t.join().unwrap());
    assert_eq!(shared.keeper.count(), 0);
}

#[test]
fn xpmem_recall() {
    run::holds("xpmem_recall", || recall_against_fault(false));
}
#[test]
fn xpmem_fault_let_go_early() {
    run::fails("xpmem_fault_let_go_early", "stale entry", || {
        recall_against_fault(true)
    });
}
#[test]
fn xpmem_wakeups() {
    run::holds("xpmem_wakeups", nobody_sleeps_on);
}
