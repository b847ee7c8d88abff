//! `mremap_dontunmap`: the pages move and the source stays mapped.

use crate::common::{
    PAGE, RW, World, at,
    calls::{FIXED, KEEP, remap},
    objects::shmem,
};
use emmu::mm::{MapFlags, MremapArgs};

fn fill(w: &mut World, from: u64, n: u64, byte: u8) {
    (from..from + n).for_each(|page| w.put(page, byte));
}
fn all(w: &mut World, from: u64, n: u64, byte: u8) {
    for page in from..from + n {
        assert_eq!(w.get(page), Ok(byte), "page {page}");
    }
}

/// Moves pages to a place of the kernel's choice; returns its first page.
fn anywhere(w: &mut World, from: u64, n: u64) -> u64 {
    let args = MremapArgs {
        new_addr: 0,
        ..remap(from, n, n, KEEP, 0)
    };
    let to = w.mremap(args).unwrap();
    to.wrapping_sub(at(0)) / PAGE
}

#[test]
fn mremap_dontunmap_simple() {
    let mut w = World::new();
    w.map(0, 5, RW);
    fill(&mut w, 0, 5, b'a');
    let to = anywhere(&mut w, 0, 5);
    all(&mut w, to, 5, b'a');
    all(&mut w, 0, 5, 0);
    w.end();
}

#[test]
fn mremap_dontunmap_simple_shmem() {
    let mut w = World::new();
    let file = shmem(&mut w, 5);
    w.map_file(0, 5, &file, 0, MapFlags::SHARED);
    drop(file);
    fill(&mut w, 0, 5, b'a');
    let to = anywhere(&mut w, 0, 5);
    all(&mut w, to, 5, b'a');
    all(&mut w, 0, 5, b'a');
    w.end();
}

#[test]
fn mremap_dontunmap_simple_fixed() {
    let mut w = World::new();
    w.map(20, 5, RW);
    fill(&mut w, 20, 5, b'X');
    w.map(0, 5, RW);
    fill(&mut w, 0, 5, b'a');
    assert_eq!(w.remap(0, 5, 5, KEEP | FIXED, 20), 20);
    all(&mut w, 20, 5, b'a');
    all(&mut w, 0, 5, 0);
    w.end();
}

#[test]
fn mremap_dontunmap_partial_mapping() {
    let mut w = World::new();
    w.map(0, 10, RW);
    fill(&mut w, 0, 10, b'a');
    let to = anywhere(&mut w, 5, 5);
    all(&mut w, 0, 5, b'a');
    all(&mut w, 5, 5, 0);
    all(&mut w, to, 5, b'a');
    w.end();
}

#[test]
fn mremap_dontunmap_partial_mapping_overwrite() {
    let mut w = World::new();
    w.map(0, 5, RW);
    fill(&mut w, 0, 5, b'a');
    w.map(20, 10, RW);
    fill(&mut w, 20, 10, b'X');
    assert_eq!(w.remap(0, 5, 5, KEEP | FIXED, 20), 20);
    all(&mut w, 0, 5, 0);
    all(&mut w, 20, 5, b'a');
    all(&mut w, 25, 5, b'X');
    w.end();
}
