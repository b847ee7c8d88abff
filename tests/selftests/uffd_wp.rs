//! `uffd-unit-tests`: write protection, and what a fork makes of it.

use crate::{
    area::{Area, Kind},
    common::PAGE,
};
use emmu::{
    mm::{Advice, PinKind, RegisterMode, UffdFeatures},
    notifier::Access,
};

const ALL_WP: UffdFeatures = UffdFeatures::WP_HUGETLBFS_SHMEM;

fn protected(kind: Kind, features: UffdFeatures) -> Area {
    let mut area = Area::registered(kind, features | ALL_WP, RegisterMode::WP);
    area.store(0, 1).unwrap();
    let uffd = area.uffd.clone();
    area.protect(&uffd, 0, true);
    assert!(area.is_protected(0));
    area
}

/// Forks, and tells whether the child's page is protected; `pins` in the child first.
fn child_inherits(area: &mut Area, with_event: bool, pins: bool) -> bool {
    area.in_child(|area| {
        if with_event {
            let _of_child = area.forked();
        }
        let held = pins.then(|| pin(area));
        let inherited = area.is_protected(0);
        drop(held);
        inherited
    })
}

fn pin(area: &mut Area) -> emmu::mm::HeldPages {
    let (addr, len) = (area.addr(0), PAGE as usize);
    let cx = &mut area.w.thread.cx();
    let mm = area.w.mm.clone();
    mm.pin(cx, addr, len, Access::Read, PinKind::LongTerm)
        .unwrap()
}

fn event(with_event: bool) -> UffdFeatures {
    match with_event {
        true => UffdFeatures::EVENT_FORK,
        false => UffdFeatures::empty(),
    }
}

/// Present, swapped out or dropped, a protected page is so in the child only with the event.
fn fork_on(kind: Kind, with_event: bool) {
    let mut area = protected(kind, event(with_event));
    let uffd = area.uffd.clone();
    assert_eq!(
        child_inherits(&mut area, with_event, false),
        with_event,
        "{kind:?}"
    );
    match kind.is_shared() {
        true => assert!(area.advise(0, 1, Advice::DontNeed)),
        // Huge pages of a pool cannot be swapped out.
        false => assert!(area.advise(0, 1, Advice::PageOut) || kind.is_hugetlb()),
    }
    assert!(area.is_protected(0), "{kind:?}: also out of memory");
    assert_eq!(
        child_inherits(&mut area, with_event, false),
        with_event,
        "{kind:?}"
    );
    area.protect(&uffd, 0, false);
    assert!(!area.is_protected(0));
    assert_eq!(area.load(0), Ok(1));
    area.store(0, 2).unwrap();
    assert!(!area.is_protected(0));
    area.end();
}

#[test]
fn wp_fork() {
    Kind::all().for_each(|kind| fork_on(kind, false));
}

#[test]
fn wp_fork_with_event() {
    Kind::all().for_each(|kind| fork_on(kind, true));
}

/// The same for a page that the fork copies because it is pinned, and for a page that a pin in the
/// child unshares.
fn fork_pin_on(kind: Kind, with_event: bool) {
    let mut area = protected(kind, event(with_event));
    let held = pin(&mut area);
    assert_eq!(
        child_inherits(&mut area, with_event, false),
        with_event,
        "{kind:?}"
    );
    drop(held);
    assert_eq!(
        child_inherits(&mut area, with_event, true),
        with_event,
        "{kind:?}"
    );
    area.end();
}

#[test]
fn wp_fork_pin() {
    Kind::all().for_each(|kind| fork_pin_on(kind, false));
}

#[test]
fn wp_fork_pin_with_event() {
    Kind::all().for_each(|kind| fork_pin_on(kind, true));
}

/// Markers on memory that has no page: lifted, dropped with the memory, read through.
#[test]
fn wp_unpopulated() {
    let mut area = Area::registered(Kind::Anon, UffdFeatures::WP_UNPOPULATED, RegisterMode::WP);
    let uffd = area.uffd.clone();
    area.protect(&uffd, 0, true);
    assert!(area.is_protected(0));
    area.protect(&uffd, 0, false);
    assert!(!area.is_protected(0));
    area.protect(&uffd, 0, true);
    assert!(area.advise(0, 1, Advice::DontNeed));
    assert!(!area.is_protected(0), "dropped");
    area.store(0, 1).unwrap();
    assert!(!area.is_protected(0));
    assert!(area.advise(0, 1, Advice::DontNeed));
    area.protect(&uffd, 0, true);
    assert_eq!(area.load(0), Ok(0), "the zero page");
    assert!(area.advise(0, 1, Advice::DontNeed));
    assert!(!area.is_protected(0));
    area.end();
}
