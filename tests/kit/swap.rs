//! Pages out and in again: under forks, by advice and by pressure, and with a device that is full.

use crate::common::{PAGE, RW, objects::swapping};
use emmu::{
    mm::Advice,
    testkit::{Profile, Suite},
};

/// Under forks, page-out, pressure, migration, merging, discards.
#[test]
fn every_byte_is_kept() {
    let suite = Suite::new([]).profile(Profile::Swap).cases(256).steps(60);
    if let Err(failure) = suite.regressions(crate::drawn::kept("swap")).run() {
        panic!("\n{failure}");
    }
}

#[test]
fn a_full_device_keeps_pages_in_memory() {
    let mut w = swapping(64, 2);
    w.map(0, 4, RW);
    (0..4).for_each(|n| w.put(n, n as u8 + 1));
    w.advise(0, 4, Advice::PageOut).unwrap();
    assert_eq!(w.machine.mem().swap().used(), 2);
    assert_eq!([0, 1, 2, 3].map(|n| w.get(n).unwrap()), [1, 2, 3, 4]);
    w.end();
}

#[test]
fn sharers_of_a_slot_share_the_frame_again() {
    let mut w = swapping(64, 64);
    w.map(0, 1, RW);
    w.put(0, 7);
    let child = w.fork();
    w.machine.reclaim_all(&mut w.thread.cx());
    let used = w.machine.mem().in_use();
    assert_eq!(w.get(0), Ok(7));
    assert_eq!(w.inside(&child, |w| w.get(0)), Ok(7));
    assert_eq!(w.machine.mem().in_use(), used + 1);
    w.put(0, 8);
    assert_eq!(w.inside(&child, |w| w.get(0)), Ok(7));
    w.reap(&child);
    w.end();
}

#[test]
fn locked_memory_stays() {
    let mut w = swapping(64, 64);
    w.map(0, 4, RW);
    w.fill(0, 4);
    w.lock(0, 2).unwrap();
    w.told();
    assert_eq!(w.machine.reclaim_all(&mut w.thread.cx()), 2);
    assert!(w.advise(0, 1, Advice::PageOut).is_err());
    w.unlock(0, 2).unwrap();
    w.advise(0, 2, Advice::PageOut).unwrap();
    assert_eq!(w.machine.mem().in_use(), 0);
}

#[test]
fn lazily_freed_pages_go_unless_written_again() {
    let mut w = swapping(64, 64);
    w.map(0, 2, RW);
    w.fill(0, 2);
    w.advise(0, 2, Advice::Free).unwrap();
    w.put(1, 5);
    w.machine.reclaim_all(&mut w.thread.cx());
    assert_eq!((w.get(0), w.get(1)), (Ok(0), Ok(5)));
    assert_eq!(PAGE, 4096);
}
