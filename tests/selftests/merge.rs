//! `merge`: VMAs that become neighbours merge, also if one of them was never written, and not if
//! they came by a fork.

use crate::common::{
    RW, World,
    calls::{FIXED, KEEP, NONE, READ, private},
};
use emmu::mm::{MapFlags, Prot};

const RWX: Prot = RW.union(Prot::EXEC);

/// A world whose first 30 pages are taken by a mapping without rights, over which others are made.
fn carveout() -> World {
    let mut w = World::new();
    w.map(0, 30, NONE);
    w
}
/// Maps without a promise, so that no promise keeps neighbours apart.
fn map(w: &mut World, from: u64, n: u64, prot: Prot) {
    w.map_with(from, n, prot, MapFlags::NORESERVE);
}
/// The VMA of a page.
fn span(w: &mut World, page: u64) -> (u64, u64) {
    let spans = w.spans();
    let found = spans.iter().find(|(from, to)| (*from..*to).contains(&page));
    *found.expect("mapped")
}
/// Moves `n` pages.
fn place(w: &mut World, from: u64, n: u64, to: u64) {
    assert_eq!(w.remap(from, n, n, FIXED, to), to);
}

#[test]
fn mprotect_unfaulted_left() {
    let mut w = carveout();
    map(&mut w, 1, 10, RW);
    w.protect(1, 5, READ).unwrap();
    w.put(6, 1);
    w.protect(6, 5, READ).unwrap();
    assert_eq!(span(&mut w, 1), (1, 11));
    w.end();
}

#[test]
fn mprotect_unfaulted_right() {
    let mut w = carveout();
    map(&mut w, 1, 10, RW);
    w.protect(6, 5, READ).unwrap();
    w.put(1, 1);
    w.protect(1, 5, READ).unwrap();
    assert_eq!(span(&mut w, 1), (1, 11));
    w.end();
}

/// Nine pages of which the outer parts become read-only before or after page `written` is written,
/// and the middle last.
fn mprotect_three(before: &[u64], written: u64, after: &[u64]) {
    let mut w = carveout();
    map(&mut w, 2, 9, RW);
    before
        .iter()
        .for_each(|at| w.protect(*at, 3, READ).unwrap());
    w.put(written, 1);
    after.iter().for_each(|at| w.protect(*at, 3, READ).unwrap());
    w.protect(5, 3, READ).unwrap();
    assert_eq!(span(&mut w, 2), (2, 11));
    w.end();
}

#[test]
fn mprotect_unfaulted_both() {
    mprotect_three(&[2, 8], 5, &[]);
}

#[test]
fn mprotect_faulted_left_unfaulted_right() {
    mprotect_three(&[8], 2, &[2]);
}

#[test]
fn mprotect_unfaulted_left_faulted_right() {
    mprotect_three(&[2], 5, &[8]);
}

#[test]
fn forked_target_vma() {
    let mut w = carveout();
    w.map(1, 5, RW);
    w.put(1, 1);
    let child = w.fork();
    w.inside(&child, |w| {
        w.fill(1, 5);
        w.map(6, 5, RW);
        assert_eq!(span(w, 1), (1, 6), "copies of its own change nothing");
    });
    w.reap(&child);
    w.end();
}

#[test]
fn forked_source_vma() {
    let mut w = carveout();
    map(&mut w, 1, 5, RW);
    w.put(1, 1);
    let child = w.fork();
    w.inside(&child, |w| {
        w.fill(1, 5);
        map(w, 6, 5, RWX);
        assert_eq!(span(w, 6), (6, 11));
        w.protect(1, 5, RWX).unwrap();
        assert_eq!(span(w, 6), (6, 11));
    });
    w.reap(&child);
    w.end();
}

#[test]
fn ksm_merge() {
    let mut w = carveout();
    w.map(1, 1, RW);
    w.map(2, 1, RW);
    assert_eq!(span(&mut w, 1), (1, 3));
    w.munmap(2, 1).unwrap();
    let mm = w.mm.clone();
    mm.set_merge_all(&mut w.thread.cx(), true).unwrap();
    w.map(2, 1, RW);
    assert_eq!(span(&mut w, 1), (1, 3));
    w.munmap(1, 2).unwrap();
    w.map(1, 1, RW);
    w.map(2, 1, RW);
    assert_eq!(span(&mut w, 1), (1, 3));
    w.end();
}

#[test]
fn mremap_unfaulted_to_faulted() {
    let mut w = carveout();
    w.map(1, 5, RW);
    w.map(7, 5, RW);
    place(&mut w, 7, 5, 1007);
    w.put(1, 1);
    place(&mut w, 1007, 5, 6);
    assert_eq!(span(&mut w, 1), (1, 11));
    w.end();
}

#[test]
fn mremap_unfaulted_behind_faulted() {
    let mut w = carveout();
    w.map(6, 5, RW);
    w.map(14, 5, RW);
    place(&mut w, 14, 5, 1014);
    w.put(6, 1);
    place(&mut w, 1014, 5, 1);
    assert_eq!(span(&mut w, 1), (1, 11));
    w.end();
}

/// Mappings 1, 7 and 14; the last comes to 11, and then the second between the two.
fn between(third_faulted: bool) -> World {
    let mut w = carveout();
    for at in [1, 7, 14] {
        w.map(at, 5, RW);
    }
    place(&mut w, 14, 5, 2014);
    place(&mut w, 7, 5, 1007);
    w.put(1, 1);
    if third_faulted {
        w.put(2014, 1);
    }
    place(&mut w, 2014, 5, 11);
    place(&mut w, 1007, 5, 6);
    w
}

#[test]
fn mremap_unfaulted_between_faulted() {
    let mut w = between(true);
    assert_eq!((span(&mut w, 1), span(&mut w, 11)), ((1, 11), (11, 16)));
    w.end();
}

#[test]
fn mremap_unfaulted_between_faulted_unfaulted() {
    let mut w = between(false);
    assert_eq!(span(&mut w, 1), (1, 16));
    w.end();
}

#[test]
fn mremap_unfaulted_between_correctly_placed_faulted() {
    let mut w = carveout();
    w.map(1, 15, RW);
    w.put(1, 1);
    w.munmap(6, 5).unwrap();
    w.map(20, 5, RW);
    place(&mut w, 20, 5, 6);
    assert_eq!(span(&mut w, 1), (1, 16));
    w.end();
}

#[test]
fn mremap_correct_placed_faulted() {
    let mut w = carveout();
    w.map(1, 15, RW);
    w.put(1, 1);
    place(&mut w, 11, 5, 2011);
    place(&mut w, 6, 5, 1006);
    place(&mut w, 1006, 5, 6);
    assert_eq!(span(&mut w, 1), (1, 11));
    place(&mut w, 1, 5, 1001);
    place(&mut w, 1001, 5, 1);
    assert_eq!(span(&mut w, 1), (1, 11));
    place(&mut w, 1, 5, 1001);
    place(&mut w, 2011, 5, 11);
    assert_eq!(span(&mut w, 6), (6, 16));
    place(&mut w, 1001, 5, 1);
    assert_eq!(span(&mut w, 1), (1, 16));
    place(&mut w, 6, 5, 1006);
    place(&mut w, 1006, 5, 6);
    assert_eq!(span(&mut w, 1), (1, 16));
    place(&mut w, 11, 5, 1011);
    place(&mut w, 1011, 5, 11);
    assert_eq!(span(&mut w, 1), (1, 16));
    w.end();
}

/// A written mapping comes from far away, and its source stays, between neighbours that were never
/// written.
fn faulted_to(at: u64, neighbours: &[u64], merged: (u64, u64)) {
    let mut w = carveout();
    w.map(at, 3, RW);
    w.put(at, 1);
    place(&mut w, at, 3, 20);
    neighbours.iter().for_each(|from| w.map(*from, 3, RW));
    assert_eq!(w.remap(20, 3, 3, KEEP | FIXED, at), at);
    assert_eq!(span(&mut w, at), merged);
    assert_eq!((w.get(at), w.get(20)), (Ok(1), Ok(0)));
    w.munmap(at, 3).unwrap();
    w.check_rmap();
    w.end();
}

#[test]
fn mremap_faulted_to_unfaulted_prev() {
    faulted_to(4, &[1], (1, 7));
}

#[test]
fn mremap_faulted_to_unfaulted_next() {
    faulted_to(1, &[4], (1, 7));
}

#[test]
fn mremap_faulted_to_unfaulted_prev_unfaulted_next() {
    faulted_to(4, &[1, 7], (1, 10));
}

#[test]
fn mremap_faulted_to_unfaulted_prev_faulted_next() {
    let mut w = carveout();
    w.map(4, 6, RW);
    w.put(4, 1);
    place(&mut w, 4, 3, 20);
    w.map(1, 3, RW);
    assert_eq!(w.remap(20, 3, 3, KEEP | FIXED, 4), 4);
    assert_eq!(span(&mut w, 1), (1, 10));
    w.check_rmap();
    w.end();
}

/// The cases above are none of a world in which everything merges.
#[test]
fn other_rights_keep_neighbours_apart() {
    let mut w = carveout();
    w.mmap(&private(1, 5).prot(RW)).unwrap();
    w.mmap(&private(6, 5).prot(READ)).unwrap();
    assert_eq!(span(&mut w, 1), (1, 6));
    w.end();
}
