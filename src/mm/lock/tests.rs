//! Readers and writers, claims of both kinds, with real threads; Miri runs these too.

use super::{Claim, MmapLock, Ranges};
use crate::addr::{Vpn, VpnRange};
use std::sync::{
    Barrier,
    atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
};

const ROUNDS: u64 = if cfg!(miri) { 20 } else { 5000 };

#[test]
fn writers_exclude_each_other_and_readers() {
    let lock = MmapLock::new((0_u64, 0_u64));
    std::thread::scope(|s| {
        for _ in 0..2 {
            s.spawn(|| {
                for _ in 0..ROUNDS {
                    let mut pair = lock.write();
                    pair.0 += 1;
                    pair.1 += 1;
                }
            });
            s.spawn(|| {
                for _ in 0..ROUNDS {
                    let pair = lock.read(None);
                    assert_eq!(pair.0, pair.1);
                }
            });
        }
    });
    assert_eq!(*lock.write(), (2 * ROUNDS, 2 * ROUNDS));
}

#[test]
fn readers_are_in_at_once() {
    let lock = MmapLock::new(());
    let both = Barrier::new(2);
    std::thread::scope(|s| {
        for _ in 0..2 {
            s.spawn(|| {
                let _held = lock.read(None);
                both.wait();
            });
        }
    });
}

#[test]
fn a_writer_sleeps_until_the_last_reader_has_left() {
    let lock = MmapLock::new(());
    let (left, seen) = (AtomicBool::new(false), AtomicU32::new(0));
    let held = lock.read(None);
    std::thread::scope(|s| {
        s.spawn(|| {
            let _held = lock.write();
            assert!(left.load(SeqCst));
            seen.fetch_add(1, SeqCst);
        });
        std::thread::sleep(std::time::Duration::from_millis(20));
        left.store(true, SeqCst);
        drop(held);
    });
    assert_eq!(seen.load(SeqCst), 1);
}

#[test]
fn a_reader_that_waited_comes_in_before_the_next_writer_is_done() {
    let mut lock = MmapLock::new(0);
    let held = lock.write();
    std::thread::scope(|s| {
        let reader = s.spawn(|| *lock.read(None));
        std::thread::sleep(std::time::Duration::from_millis(5));
        drop(held);
        assert!(reader.join().unwrap() <= 1);
        *lock.write() += 1;
    });
    assert_eq!(*lock.get_mut(), 1);
}

const A: VpnRange = VpnRange::single(Vpn(16));
const B: VpnRange = VpnRange::single(Vpn(20));

fn claim(of: VpnRange) -> Claim {
    let no_readers: Ranges = [of].into_iter().collect();
    let no_writers = no_readers.clone();
    Claim {
        no_readers,
        no_writers,
    }
}

#[test]
fn others_come_in_while_a_claim_lasts() {
    let lock = MmapLock::new(0);
    let mut g = lock.write();
    *g = 1;
    g.yield_while(claim(A), || {
        std::thread::scope(|s| {
            // Reads before or after the writer below.
            s.spawn(|| assert!((1..=2).contains(&*lock.read(Some(B)))));
            s.spawn(|| {
                let mut g = lock.write();
                assert!(g.wait_for_conflicts(&[B], &[B]));
                *g = 2;
                g.yield_while(claim(B), || assert_eq!(*lock.read(None), 2));
            });
        });
    });
    assert_eq!(*g, 2);
}

#[test]
fn who_wants_what_is_claimed_waits() {
    let lock = MmapLock::new(0);
    std::thread::scope(|s| {
        let mut g = lock.write();
        g.yield_while(claim(A), || {
            s.spawn(|| assert!(*lock.read(Some(A)) >= 1));
            s.spawn(|| {
                let mut g = lock.write();
                while !g.wait_for_conflicts(&[A], &[A]) {}
                assert!(*g >= 1);
                *g += 1;
            });
            std::thread::sleep(std::time::Duration::from_millis(20));
        });
        // The reader and the writer above see this store.
        *g = 1;
        drop(g);
    });
    assert_eq!(*lock.write(), 2);
}

#[test]
fn writers_of_a_claimed_range_wait() {
    let lock = MmapLock::new(());
    let left = AtomicBool::new(false);
    let held = lock.read(Some(A));
    let claim = lock.claim_shared(&held, A);
    drop(held);
    std::thread::scope(|s| {
        let other = s.spawn(|| {
            let mut g = lock.write();
            while !g.wait_for_conflicts(&[A], &[A]) {}
            assert!(left.load(SeqCst));
        });
        assert!(
            lock.write().wait_for_conflicts(&[B], &[A]),
            "of another they do not"
        );
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert!(!other.is_finished());
        left.store(true, SeqCst);
        drop(claim);
    });
    assert!(lock.write().is_only_one());
}

#[test]
fn a_claim_ends_with_a_panic() {
    let lock = MmapLock::new(0);
    let mut g = lock.write();
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        g.yield_while(claim(A), || panic!("a driver's"));
    }));
    assert!(caught.is_err());
    assert!(g.is_only_one());
    *g = 1;
    drop(g);
    assert_eq!(*lock.read(Some(A)), 1);
}

#[test]
fn claims_readers_and_writers_at_once() {
    let lock = MmapLock::new((0_u64, 0_u64));
    let rounds = ROUNDS / 5;
    std::thread::scope(|s| {
        for own in [A, B] {
            s.spawn({
                let lock = &lock;
                move || {
                    for _ in 0..rounds {
                        let mut g = lock.write();
                        while !g.wait_for_conflicts(&[own], &[own]) {}
                        g.0 += 1;
                        g.1 += 1;
                        g.yield_while_shared(claim(own), |pair| assert_eq!(pair.0, pair.1));
                        g.0 += 1;
                        g.1 += 1;
                    }
                }
            });
            s.spawn({
                let lock = &lock;
                move || {
                    for _ in 0..rounds {
                        let g = lock.read(Some(own));
                        assert_eq!(g.0, g.1);
                        let claim = lock.claim_shared(&g, own);
                        drop(g);
                        drop(claim);
                    }
                }
            });
        }
    });
    assert_eq!(*lock.write(), (4 * rounds, 4 * rounds));
}
