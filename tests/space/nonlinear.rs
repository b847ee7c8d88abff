//! The original form of `remap_file_pages`: one VMA, its pages in any order.

use crate::common::{
    PAGE, World, at,
    objects::{disk, shmem, swapping},
};
use emmu::{
    FaultError,
    file::File,
    mm::{Advice, MapFlags, Prot, RemapMode},
};
use std::sync::Arc;

/// Pages 0..8 map a file of 8 pages, the file's page `p` starting with `p + 1`; every page was
/// touched.
fn world() -> (World, Arc<File>) {
    let mut w = swapping(512, 64);
    let file = shmem(&mut w, 8);
    w.map_file(0, 8, &file, 0, MapFlags::SHARED);
    w.mm.set_remap_mode(&mut w.thread.cx(), RemapMode::Nonlinear);
    (0..8).for_each(|n| assert!(w.get(n).is_ok()));
    w.told();
    (w, file)
}
fn remap(w: &mut World, from: u64, n: u64, pgoff: u64, flags: MapFlags) -> Result<(), String> {
    let (none, len) = (Prot::empty(), n * PAGE);
    w.mm.remap_file_pages(&mut w.thread.cx(), at(from), len, none, pgoff, flags)
        .map_err(|e| e.errno().to_string())
}
fn bytes(w: &mut World) -> Vec<u8> {
    (0..8).map(|n| w.get(n).unwrap()).collect()
}
const EAGER: MapFlags = MapFlags::empty();

#[test]
fn the_vma_stays_one_and_the_window_is_the_range() {
    let (mut w, _) = world();
    remap(&mut w, 2, 3, 5, EAGER).unwrap();
    assert_eq!((w.told().as_str(), w.spans()), ("W2..5", vec![(0, 8)]));
    assert_eq!(bytes(&mut w), [1, 2, 6, 7, 8, 6, 7, 8]);
    w.check_rmap();
    w.put(3, 99);
    assert_eq!(
        (w.get(6), w.get(3)),
        (Ok(99), Ok(99)),
        "one page in two places"
    );
}

#[test]
fn places_outlive_discards_reclaim_and_forks() {
    let (mut w, _) = world();
    (0..8).for_each(|n| remap(&mut w, n, 1, 7 - n, MapFlags::NONBLOCK).unwrap());
    w.told();
    assert_eq!(bytes(&mut w), [8, 7, 6, 5, 4, 3, 2, 1]);
    assert_eq!(w.told(), "", "faults make none");
    w.advise(0, 8, Advice::DontNeed).unwrap();
    assert_eq!(bytes(&mut w), [8, 7, 6, 5, 4, 3, 2, 1]);
    w.advise(0, 8, Advice::PageOut).unwrap();
    assert_eq!(w.machine.mem().in_use(), 0);
    let child = w.fork();
    assert_eq!(w.inside(&child, bytes), [8, 7, 6, 5, 4, 3, 2, 1]);
    assert_eq!(bytes(&mut w), [8, 7, 6, 5, 4, 3, 2, 1]);
    w.check_rmap();
    w.reap(&child);
}

#[test]
fn a_cut_finds_pages_wherever_they_are() {
    let (mut w, file) = world();
    remap(&mut w, 0, 2, 6, EAGER).unwrap();
    w.told();
    file.truncate(w.thread.cx(), 6 * PAGE).unwrap();
    assert_eq!(w.told(), "W0..8 W0..8", "all of it, in both passes");
    assert_eq!(w.get(0), Err(FaultError::Beyond(at(0))));
    assert_eq!((w.get(2), w.get(5)), (Ok(3), Ok(6)));
    file.truncate(w.thread.cx(), 8 * PAGE).unwrap();
    assert_eq!((w.get(0), w.get(1)), (Ok(0), Ok(0)), "the place was kept");
    w.check_rmap();
}

#[test]
fn a_split_keeps_both_halves_found() {
    let (mut w, file) = world();
    remap(&mut w, 0, 8, 0, EAGER).unwrap();
    remap(&mut w, 1, 1, 6, EAGER).unwrap();
    w.munmap(3, 2).unwrap();
    w.check_rmap();
    w.told();
    file.punch_hole(w.thread.cx(), 6 * PAGE, PAGE).unwrap();
    assert_eq!(w.told(), "W0..3 W5..8");
    assert_eq!((w.get(1), w.get(6), w.get(7)), (Ok(0), Ok(0), Ok(8)));
    drop(file);
    w.end();
}

#[test]
fn writeback_finds_pages_wherever_they_are() {
    let mut w = World::new();
    let (object, file) = disk(&mut w, 8);
    w.map_file(0, 8, &file, 0, MapFlags::SHARED);
    w.mm.set_remap_mode(&mut w.thread.cx(), RemapMode::Nonlinear);
    remap(&mut w, 0, 1, 5, EAGER).unwrap();
    w.put(0, 77);
    w.told();
    w.sync(0, 1, emmu::mm::MsyncFlags::SYNC).unwrap();
    assert_eq!((w.told().as_str(), object.dirty()), ("W0..1", 0));
    w.put(0, 78);
    assert_eq!((object.dirty(), w.get(5)), (1, Ok(78)));
}

#[test]
fn what_does_not_fit_is_refused() {
    let (mut w, _) = world();
    let bad = Err("EINVAL".to_owned());
    assert_eq!(remap(&mut w, 6, 4, 0, EAGER), bad, "beyond the mapping");
    assert_eq!(remap(&mut w, 20, 1, 0, EAGER), bad, "nothing there");
    assert_eq!(remap(&mut w, 0, 1, u64::MAX, EAGER), bad);
    w.map(30, 2, crate::common::RW);
    assert_eq!(remap(&mut w, 30, 1, 0, EAGER), bad, "private");
    assert_eq!(
        remap(&mut w, 0, 1, 1 << 40, EAGER),
        Err("EOVERFLOW".to_owned())
    );
    assert_eq!(bytes(&mut w), [1, 2, 3, 4, 5, 6, 7, 8]);
}
