//! `mkdirty`: a page that becomes dirty in a read-only mapping does not become writable.

use crate::{
    area::HUGE,
    common::{PAGE, RW, World, at, calls::READ, objects::swapping},
    uffd_unit::huge_pages,
};
use emmu::{
    FaultError,
    mm::{Advice, FillMode, RegisterMode, UffdFeatures},
};

/// A store is refused and changes nothing.
fn write_sigsegv(mut w: World, page: u64) {
    let before = w.get(page);
    let stored = w.mm.store(&mut w.thread.cx(), at(page), 99);
    assert_eq!(stored, Err(FaultError::Denied(at(page))));
    assert_eq!(w.get(page), before);
    w.end();
}
fn force(w: &mut World, page: u64) {
    let done = w.mm.write_remote(&mut w.thread.cx(), at(page), &[1]);
    assert_eq!((done, w.get(page)), (Ok(1), Ok(1)));
}
/// A huge page.
fn thp(prot: emmu::mm::Prot) -> World {
    let mut w = swapping(4096, 0);
    w.map(0, HUGE, prot);
    w.advise(0, HUGE, Advice::HugePage).unwrap();
    w
}
fn written_thp() -> World {
    let mut w = thp(RW);
    w.put(0, 1);
    assert_eq!(huge_pages(&mut w, 0, HUGE), HUGE);
    w.protect(0, HUGE, READ).unwrap();
    w
}

#[test]
fn ptrace_write() {
    let mut w = World::new();
    w.map(0, 1, READ);
    assert_eq!(w.get(0), Ok(0));
    force(&mut w, 0);
    write_sigsegv(w, 0);
}

#[test]
fn ptrace_write_thp() {
    let mut w = thp(READ);
    force(&mut w, 0);
    assert_eq!(huge_pages(&mut w, 0, HUGE), HUGE);
    write_sigsegv(w, 0);
}

#[test]
fn page_migration() {
    let mut w = World::new();
    w.map(0, 1, RW);
    w.put(0, 1);
    w.protect(0, 1, READ).unwrap();
    assert!(w.mm.migrate(&mut w.thread.cx(), at(0)).unwrap().is_some());
    write_sigsegv(w, 0);
}

#[test]
fn page_migration_thp() {
    let mut w = written_thp();
    assert!(w.mm.migrate(&mut w.thread.cx(), at(0)).unwrap().is_some());
    write_sigsegv(w, 0);
}

#[test]
fn pte_mapped_thp() {
    let mut w = written_thp();
    w.protect(HUGE - 1, 1, RW).unwrap();
    assert_eq!(huge_pages(&mut w, 0, HUGE), 0);
    write_sigsegv(w, 0);
}

#[test]
fn uffdio_copy() {
    let mut w = World::new();
    w.map(0, 1, READ);
    let uffd = w.userfaultfd(UffdFeatures::empty());
    w.register(&uffd, 0, 1, RegisterMode::MISSING);
    let cx = &mut w.thread.cx();
    let bytes = vec![1; usize::try_from(PAGE).unwrap()];
    assert_eq!(uffd.copy(cx, at(0), &bytes, FillMode::empty()), Ok(PAGE));
    write_sigsegv(w, 0);
}
