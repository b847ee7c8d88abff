//! `hugetlb-madvise`: what advice gives back to the pool. The figures are free pages, counted from
//! all.

use crate::{
    area::{HUGE, end, world},
    common::{PAGE, World, at, calls::private},
};
use emmu::{
    Errno, HugeSize,
    file::{File, FileMode, HugetlbFile},
    mm::{Advice, MapFlags},
};
use std::sync::Arc;

/// Huge pages of a mapping.
const N: u64 = 10;
const BYTES: u64 = HUGE * PAGE;

fn used(w: &World) -> u64 {
    24 - w.machine.mem().huge_pool(HugeSize::Mib2).free
}
fn anonymous(w: &mut World, from: u64, n: u64) {
    let args = private(from * HUGE, n * HUGE).flags(MapFlags::HUGETLB);
    assert!(w.mmap(&args).is_ok());
}
fn write(w: &mut World, from: u64) {
    (from..from + N).for_each(|block| w.put(block * HUGE, 1));
}
fn read(w: &mut World, from: u64) {
    (from..from + N).for_each(|block| assert!(w.get(block * HUGE).is_ok()));
}
fn advise(w: &mut World, from: u64, advice: Advice) {
    w.advise(from * HUGE, N * HUGE, advice).unwrap();
}
/// A file with all its pages.
fn file(w: &mut World) -> Arc<File> {
    let object = HugetlbFile::memfd(w.machine.host(), "h", N * BYTES, HugeSize::Mib2).unwrap();
    let file = File::open(object, FileMode::ReadWrite);
    allocate(w, &file);
    file
}
fn allocate(w: &mut World, file: &File) {
    let mode = emmu::file::FallocateMode::empty();
    file.fallocate(w.thread.cx(), mode, 0, N * BYTES).unwrap();
    assert_eq!(used(w), N);
}

/// The range begins and ends in the mapping.
#[test]
fn dontneed_range() {
    let mut w = world();
    anonymous(&mut w, 0, N + 2);
    w.munmap(0, HUGE).unwrap();
    w.munmap((N + 1) * HUGE, HUGE).unwrap();
    write(&mut w, 1);
    assert_eq!(used(&w), N);
    let before = w.advise_bytes(at(HUGE - 1), N * BYTES, Advice::DontNeed);
    assert_eq!(before, Err(Errno::ENOMEM), "a hole");
    let beyond = w.advise_bytes(at(HUGE), N * BYTES + PAGE, Advice::DontNeed);
    assert_eq!(beyond, Err(Errno::ENOMEM));
    end(w);
}

/// The beginning lies at a huge page, and the end is rounded down to one.
#[test]
fn dontneed_alignment() {
    let mut w = world();
    anonymous(&mut w, 0, N);
    write(&mut w, 0);
    let inside = w.advise_bytes(at(1), N * BYTES - PAGE, Advice::DontNeed);
    assert_eq!(inside, Err(Errno::EINVAL));
    let length = (N - 1) * BYTES + PAGE;
    assert_eq!(w.advise_bytes(at(0), length, Advice::DontNeed), Ok(()));
    assert_eq!(used(&w), 1, "all but the last");
    end(w);
}

#[test]
fn dontneed_anonymous_private() {
    let mut w = world();
    anonymous(&mut w, 0, N);
    write(&mut w, 0);
    assert_eq!(used(&w), N);
    advise(&mut w, 0, Advice::DontNeed);
    assert_eq!(used(&w), 0);
    end(w);
}

/// A hole in the file takes the private copies too.
#[test]
fn dontneed_private_of_a_file() {
    let mut w = world();
    let file = file(&mut w);
    w.map_file(0, N * HUGE, &file, 0, MapFlags::PRIVATE);
    read(&mut w, 0);
    assert_eq!(used(&w), N);
    advise(&mut w, 0, Advice::DontNeed);
    assert_eq!(used(&w), N);
    for _ in 0..2 {
        write(&mut w, 0);
        assert_eq!(used(&w), 2 * N);
        advise(&mut w, 0, Advice::DontNeed);
        assert_eq!(used(&w), N);
    }
    write(&mut w, 0);
    file.punch_hole(w.thread.cx(), 0, N * BYTES).unwrap();
    assert_eq!(used(&w), 0);
    drop(file);
    end(w);
}

#[test]
fn dontneed_and_remove_shared() {
    let mut w = world();
    let file = file(&mut w);
    w.map_file(0, N * HUGE, &file, 0, MapFlags::SHARED);
    write(&mut w, 0);
    assert_eq!(used(&w), N);
    advise(&mut w, 0, Advice::DontNeed);
    assert_eq!(used(&w), N);
    advise(&mut w, 0, Advice::Remove);
    assert_eq!(used(&w), 0);
    drop(file);
    end(w);
}

#[test]
fn remove_shared_and_private() {
    let mut w = world();
    let file = file(&mut w);
    w.map_file(0, N * HUGE, &file, 0, MapFlags::SHARED);
    write(&mut w, 0);
    w.map_file(N * HUGE, N * HUGE, &file, 0, MapFlags::PRIVATE);
    read(&mut w, N);
    assert_eq!(used(&w), N);
    write(&mut w, N);
    assert_eq!(used(&w), 2 * N);
    advise(&mut w, 0, Advice::DontNeed);
    assert_eq!(used(&w), 2 * N);
    advise(&mut w, N, Advice::DontNeed);
    assert_eq!(used(&w), N);
    write(&mut w, N);
    assert_eq!(used(&w), 2 * N);
    advise(&mut w, 0, Advice::Remove);
    assert_eq!(used(&w), 0, "the private copies too");
    drop(file);
    end(w);
}
