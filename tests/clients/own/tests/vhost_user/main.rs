//! A disk in another process, by `vhost-user-backend` as it is published, whose guest's memory is
//! that of an emulated process. The frames are in memory that both processes map.

mod guest;
mod host;

#[path = "../../../../external/beside.rs"]
#[allow(dead_code)]
mod beside;

use emmu::mm::Advice;
use emmu_clients_own::Reach;
use guest::{BUFFER, DATA, OTHER};
use host::{BASE, Host, PAGE, PAGES};
use std::{
    sync::atomic::{AtomicBool, Ordering::Release},
    thread,
};

/// Bytes of `n` sectors that no other seed has.
fn pattern(seed: u8, n: usize) -> Vec<u8> {
    (0..n * 512)
        .map(|at| seed.wrapping_mul(31).wrapping_add((at % 251) as u8))
        .collect()
}

/// Writes to the disk and reads it back, while `disturb` runs.
fn requests(host: &Host, rounds: u8, disturb: impl Fn(&Host, &AtomicBool) + Sync) {
    let done = AtomicBool::new(false);
    let guest = host.guest();
    thread::scope(|s| {
        s.spawn(|| disturb(host, &done));
        for round in 0..rounds {
            // Eight sectors and a half page before them: three pages.
            let (bytes, sector) = (pattern(round, 12), u32::from(round % 16) * 12);
            guest.put(DATA + PAGE / 2, &bytes);
            assert_eq!(guest.write(sector, DATA + PAGE / 2, bytes.len()), 0);
            guest.put(BUFFER, &vec![0; bytes.len()]);
            assert_eq!(guest.read(sector, BUFFER, bytes.len()), 0);
            assert!(guest.get(BUFFER, bytes.len()) == bytes, "round {round}");
        }
        done.store(true, Release);
    });
}

#[test]
fn a_request_is_served_through_an_iotlb_while_its_pages_move() {
    let host = Host::start(Reach::Iotlb);
    requests(&host, 100, |host, done| {
        // The first page is the ring's, which the table has: it is pinned.
        let pages = BASE + PAGE..BASE + PAGES * PAGE;
        beside::churn(host.mm(), pages, 4, done);
    });
    host.end();
}

/// The data of a second request when its page has moved after the first.
fn second_request_has(reach: Reach) -> u8 {
    let host = Host::start(reach);
    let guest = host.guest();
    guest.put(DATA, &[0xa1; 512]);
    assert_eq!(guest.write(0, DATA, 512), 0);
    let machine = guest.mm().machine();
    let moved = machine.with_current(|cx| guest.mm().migrate(cx, BASE + DATA));
    assert!(moved.unwrap().unwrap().is_some());
    guest.put(DATA, &[0xb2; 512]);
    assert_eq!(guest.write(0, DATA, 512), 0);
    assert_eq!(guest.read(0, OTHER, 512), 0);
    let first = guest.get(OTHER, 1)[0];
    host.end();
    first
}

#[test]
fn a_request_has_the_page_that_is_there_now() {
    assert_eq!(second_request_has(Reach::Iotlb), 0xb2);
}

/// The twin.
#[test]
fn a_disk_that_is_told_of_no_invalidation_has_another_page() {
    assert_ne!(second_request_has(Reach::Deaf), 0xb2);
}

#[test]
fn what_the_guest_has_not_is_an_error_of_the_request() {
    let host = Host::start(Reach::Iotlb);
    let guest = host.guest();
    assert_eq!(guest.write(0, PAGES * PAGE, 512), 1);
    guest.put(DATA, &[1; 512]);
    assert_eq!(guest.write(0, DATA, 512), 0);
    host.end();
}

/// Its windows wait for nothing, and what it had is not in the memory of others.
#[test]
fn a_disk_that_is_killed_keeps_no_window_waiting() {
    let host = Host::start(Reach::Iotlb);
    let guest = host.guest();
    guest.put(DATA, &[1; 512]);
    assert_eq!(guest.write(0, DATA, 512), 0);
    guest.kill_the_disk();
    let machine = guest.mm().machine();
    let dropped = machine.with_current(|cx| {
        let pages = (PAGES - 1) * PAGE;
        guest.mm().madvise(cx, BASE + PAGE, pages, Advice::DontNeed)
    });
    dropped.unwrap().unwrap();
    assert_eq!(guest.get(DATA, 1), [0]);
    host.end();
}

/// Without an IOTLB all pages are pinned while the table stands: none moves, a fork copies them.
#[test]
fn a_request_is_served_by_the_table_of_memory_while_its_pages_are_pinned() {
    let host = Host::start(Reach::Table);
    requests(&host, 100, |host, done| {
        beside::churn(host.mm(), BASE..BASE + PAGES * PAGE, 4, done);
    });
    host.end();
}
