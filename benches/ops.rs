//! Whole operations on ranges, each beside what a plain table does to the same entries. Nobody is
//! registered: windows cost one load.

mod floor;
mod world;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use emmu::{
    PAGE_SIZE,
    mm::{MmapArgs, MremapArgs, MremapFlags, Prot},
};
use floor::Floor;
use std::{hint::black_box, ops::Range};
use world::{RW, World, addr, emmu, entry, floor, group, number, numbers};

/// 256 MiB.
const PAGES: u64 = 64 << 10;
/// 1 GiB.
const GIB: u64 = 1 << 18;
/// Another entry of the root: 512 GiB above.
const FAR: u64 = 1 << 27;

fn filled(table: &mut Floor) {
    table.map(numbers(0..PAGES), entry(0));
}

fn touched(w: &mut World<'_>) {
    w.map(0..PAGES, |a| a);
    w.store(0..PAGES);
}

fn munmap(c: &mut Criterion) {
    let mut g = group(c, "munmap of 64 Ki pages");
    g.throughput(Throughput::Elements(PAGES));
    floor(&mut g, "floor", 1, filled, |table, _| {
        assert_eq!(table.unmap(numbers(0..PAGES)), 65536);
    });
    emmu(&mut g, "emmu", 1, |_| (), touched, |w, _| w.unmap(0..PAGES));
    g.finish();
}

/// Every page was written since the last fork. The floor: the entries set once more,
/// write-protected, and once as a copy far away.
fn fork(c: &mut Criterion) {
    const COPY: Range<u64> = FAR..FAR + PAGES;
    let mut g = group(c, "fork of 64 Ki pages");
    g.throughput(Throughput::Elements(PAGES));
    let alone = |table: &mut Floor| {
        filled(table);
        black_box(table.unmap(numbers(COPY)));
    };
    floor(&mut g, "floor", 1, alone, |table, _| {
        table.map(numbers(COPY), entry(0));
        table.map(numbers(0..PAGES), entry(0));
    });
    let written = |w: &mut World<'_>| {
        w.bury();
        w.store(0..PAGES);
    };
    emmu(&mut g, "emmu", 1, touched, written, |w, _| w.fork());
    g.finish();
}

/// The end of a child whose parent has all of its pages as well. The floor: as many entries
/// cleared.
fn exit(c: &mut Criterion) {
    let mut g = group(c, "exit of 64 Ki pages");
    g.throughput(Throughput::Elements(PAGES));
    floor(&mut g, "floor", 1, filled, |table, _| {
        black_box(table.unmap(numbers(0..PAGES)));
    });
    let born = |w: &mut World<'_>| {
        w.bury();
        w.fork();
    };
    emmu(&mut g, "emmu", 1, touched, born, |w, _| w.bury());
    g.finish();
}

/// Away the right to write, then back.
fn mprotect(c: &mut Criterion) {
    let mut g = group(c, "mprotect of 64 Ki pages, twice");
    g.throughput(Throughput::Elements(2 * PAGES));
    floor(&mut g, "floor", 1, filled, |table, _| {
        table.map(numbers(0..PAGES), entry(0));
        table.map(black_box(numbers(0..PAGES)), entry(0));
    });
    emmu(
        &mut g,
        "emmu",
        1,
        touched,
        |_| (),
        |w, _| {
            for prot in [Prot::READ, RW] {
                w.mm.mprotect(&mut w.cx, addr(0), PAGES * PAGE_SIZE, prot)
                    .expect("mapped");
            }
        },
    );
    g.finish();
}

/// Moves `pages` touched pages to and fro, between page 0 and page `to`.
fn mremap(c: &mut Criterion, name: &str, pages: u64, to: u64) {
    let mut g = group(c, name);
    g.throughput(Throughput::Elements(2 * pages));
    let there = move |t: &mut Floor| t.map(numbers(0..pages), entry(0));
    floor(&mut g, "floor", 1, there, |table, _| {
        for (from, to) in [(0, to), (to, 0)] {
            black_box(table.unmap(numbers(from..from + pages)));
            table.map(numbers(to..to + pages), entry(0));
        }
    });
    let first = |w: &mut World<'_>| {
        w.map(0..pages, |a| a);
        w.store(0..pages);
    };
    emmu(
        &mut g,
        "emmu",
        1,
        first,
        |_| (),
        |w, _| {
            for (from, to) in [(0, to), (to, 0)] {
                let args = MremapArgs {
                    addr: addr(from),
                    old_len: pages * PAGE_SIZE,
                    new_len: pages * PAGE_SIZE,
                    flags: MremapFlags::MAYMOVE | MremapFlags::FIXED,
                    new_addr: addr(to),
                };
                w.mm.mremap(&mut w.cx, args).expect("nothing is there");
            }
        },
    );
    g.finish();
}

fn mremap_aligned(c: &mut Criterion) {
    mremap(c, "mremap of 1 GiB, aligned, to and fro", GIB, FAR);
}

fn mremap_unaligned(c: &mut Criterion) {
    let (pages, to) = (16 << 10, FAR + 1);
    mremap(c, "mremap of 64 MiB, off by a page, to and fro", pages, to);
}

/// gVisor's: map and unmap, nothing touched, by the number of pages.
fn map_unmap(c: &mut Criterion) {
    let mut g = group(c, "BM_MapUnmap");
    for pages in [1, 512, 1 << 17] {
        emmu(
            &mut g,
            &pages.to_string(),
            1 << 20,
            |_| (),
            |_| (),
            |w, times| {
                let args = MmapArgs::anonymous(pages * PAGE_SIZE);
                for _ in 0..times {
                    let at = w.mm.mmap(&mut w.cx, &args).expect("there is room");
                    let done = w.mm.munmap(&mut w.cx, at, pages * PAGE_SIZE);
                    done.expect("just mapped");
                }
            },
        );
    }
    g.finish();
}

/// gVisor's: map, write to each page, unmap; one VMA.
fn map_touch_unmap(c: &mut Criterion) {
    let mut g = group(c, "BM_MapTouchUnmap");
    for pages in [1, 512, 1 << 15] {
        g.throughput(Throughput::Elements(pages));
        let id = pages.to_string();
        emmu(
            &mut g,
            &id,
            1 << 20,
            |_| (),
            |_| (),
            |w, times| {
                for _ in 0..times {
                    w.map(0..pages, |a| a);
                    w.store(0..pages);
                    w.unmap(0..pages);
                }
            },
        );
        floor(
            &mut g,
            &format!("{id} floor"),
            1 << 20,
            |_| (),
            |t, times| {
                for _ in 0..times {
                    for n in 0..pages {
                        t.map_one(number(n), entry(n));
                    }
                    black_box(t.unmap(numbers(0..pages)));
                }
            },
        );
    }
    g.finish();
}

/// Pages that have a VMA each, since neighbours differ in their rights.
fn many(w: &mut World<'_>, count: u64) {
    for n in 0..count {
        map_one(w, n);
    }
}

fn map_one(w: &mut World<'_>, n: u64) {
    let prot = if n.is_multiple_of(2) { Prot::READ } else { RW };
    w.map(n..n + 1, |a| a.prot(prot));
}

/// A pair of munmap and mmap of one page, by the number of VMAs: one of them, chosen at random,
/// goes and comes back; or one more is put where the search for a place finds room, and goes.
fn pairs(c: &mut Criterion) {
    let mut g = group(c, "munmap+mmap pair");
    floor(&mut g, "floor", 1 << 20, filled, |table, times| {
        for n in scattered(PAGES).take(times as usize) {
            black_box(table.unmap(numbers(n..n + 1)));
            table.map_one(number(n), entry(n));
        }
    });
    for count in [1, 10_000, 65_530] {
        let first = |w: &mut World<'_>| many(w, count);
        let id = format!("inside {count} VMAs");
        emmu(
            &mut g,
            &id,
            1 << 20,
            first,
            |_| (),
            |w, times| {
                for n in scattered(count).take(times as usize) {
                    w.unmap(n..n + 1);
                    map_one(w, n);
                }
            },
        );
        let id = format!("beside {count} VMAs");
        emmu(
            &mut g,
            &id,
            1 << 20,
            first,
            |_| (),
            |w, times| {
                let args = MmapArgs::anonymous(PAGE_SIZE);
                for _ in 0..times {
                    let at = w.mm.mmap(&mut w.cx, &args).expect("there is room");
                    let done = w.mm.munmap(&mut w.cx, at, PAGE_SIZE);
                    done.expect("just mapped");
                }
            },
        );
    }
    g.finish();
}

/// Numbers below `count` that jump about and do not soon come again: Knuth's generator, the upper
/// half of it.
fn scattered(count: u64) -> impl Iterator<Item = u64> {
    let mut state = 1_u64;
    std::iter::repeat_with(move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) % count
    })
}

criterion_group!(
    benches,
    munmap,
    fork,
    exit,
    mprotect,
    mremap_aligned,
    mremap_unaligned,
    map_unmap,
    map_touch_unmap,
    pairs
);
criterion_main!(benches);
