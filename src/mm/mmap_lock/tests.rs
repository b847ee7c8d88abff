use super::MmapLock;
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
