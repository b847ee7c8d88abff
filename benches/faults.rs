//! Page faults, in time for one page. Each group has the same pages set in a plain table beside it;
//! the quotient of the two is what an address space costs.
//!
//! Frames have no contents here, so no byte is cleared or copied: what is left is bookkeeping.

mod floor;
mod world;

use criterion::{
    BenchmarkGroup, Criterion, criterion_group, criterion_main, measurement::WallTime,
};
use emmu::{
    PAGE_SIZE,
    mm::{Advice, MapFlags, Prot},
};
use floor::Floor;
use std::hint::black_box;
use world::{World, addr, emmu, entry, floor, group, number, numbers};

/// Pages of a batch: 64 MiB.
const PAGES: u64 = 16 << 10;

/// The floor of a fault: one walk from the root for each page.
fn one_by_one(table: &mut Floor, pages: u64) {
    for n in 0..pages {
        table.map_one(number(n), entry(n));
    }
}

fn emptied(table: &mut Floor) {
    black_box(table.unmap(numbers(0..PAGES)));
}

/// The same fault on page after page of memory that `prepare` made.
fn fault(c: &mut Criterion, name: &str, prepare: fn(&mut World<'_>), access: Access) {
    let mut g = group(c, name);
    floor(&mut g, "floor", PAGES, emptied, one_by_one);
    emmu(&mut g, "emmu", PAGES, |_| (), prepare, access);
    g.finish();
}

type Access = fn(&mut World<'_>, u64);
const LOAD: Access = |w, pages| w.load(0..pages);
const STORE: Access = |w, pages| w.store(0..pages);

fn zero_read(c: &mut Criterion) {
    fault(c, "fault/zero page read", |w| w.map(0..PAGES, |a| a), LOAD);
}

fn anonymous_write(c: &mut Criterion) {
    let fresh = |w: &mut World<'_>| w.map(0..PAGES, |a| a);
    fault(c, "fault/anonymous write", fresh, STORE);
}

fn shared_write(c: &mut Criterion) {
    // A new object each time: the fault makes its page as well.
    let fresh = |w: &mut World<'_>| w.map(0..PAGES, |a| a.shared());
    fault(c, "fault/shared anonymous write", fresh, STORE);
}

/// A write to a page that a child has too: allocate, open a window, replace, close.
fn cow(c: &mut Criterion) {
    let mut g = group(c, "fault/copy on write");
    let full = |t: &mut Floor| t.map(numbers(0..PAGES), entry(0));
    floor(&mut g, "floor", PAGES, full, one_by_one);
    emmu(
        &mut g,
        "emmu",
        PAGES,
        |w| {
            w.map(0..PAGES, |a| a);
            w.store(0..PAGES);
        },
        |w| {
            w.bury();
            w.fork();
        },
        STORE,
    );
    g.finish();
}

/// All pages of a range at once: here a plain table walks once for 512 pages.
fn populate(c: &mut Criterion) {
    let mut g = group(c, "populate");
    floor(&mut g, "floor", PAGES, emptied, |table, pages| {
        table.map(numbers(0..pages), entry(0));
    });
    floor(&mut g, "floor, a walk a page", PAGES, emptied, one_by_one);
    let gone = |w: &mut World<'_>| w.unmap(0..PAGES);
    emmu(
        &mut g,
        "emmu",
        PAGES,
        |_| (),
        gone,
        |w, pages| {
            w.map(0..pages, |a| a.flags(MapFlags::POPULATE));
        },
    );
    g.finish();
}

/// gVisor's: reads of pages that their object has, each in a VMA of its own, one in two pages of
/// 250 MiB.
fn page_fault(c: &mut Criterion) {
    const REGION: u64 = 64_001;
    const READABLE: u64 = REGION / 2 + 1;
    let mut g = group(c, "BM_PageFault");
    let empty = |t: &mut Floor| _ = black_box(t.unmap(numbers(0..REGION)));
    floor(&mut g, "floor", READABLE, empty, |table, pages| {
        for n in 0..pages {
            table.map_one(number(2 * n), entry(n));
        }
    });
    emmu(&mut g, "emmu", READABLE, gaps, drop_entries, |w, pages| {
        for n in 0..pages {
            w.load(2 * n..2 * n + 1);
        }
    });
    g.finish();

    fn gaps(w: &mut World<'_>) {
        w.map(0..REGION, |a| a.shared().flags(MapFlags::POPULATE));
        w.mm.mprotect(&mut w.cx, addr(0), REGION * PAGE_SIZE, Prot::READ)
            .expect("mapped");
        for n in (1..REGION).step_by(2) {
            w.mm.mprotect(&mut w.cx, addr(n), PAGE_SIZE, Prot::empty())
                .expect("mapped");
        }
    }
    fn drop_entries(w: &mut World<'_>) {
        w.mm.madvise(&mut w.cx, addr(0), REGION * PAGE_SIZE, Advice::DontNeed)
            .expect("mapped");
    }
}

/// What a load or a store costs where no fault is taken.
fn hit(c: &mut Criterion) {
    let mut g: BenchmarkGroup<'_, WallTime> = group(c, "access");
    let full = |t: &mut Floor| t.map(numbers(0..PAGES), entry(0));
    floor(&mut g, "floor", PAGES, full, |table, pages| {
        for n in 0..pages {
            black_box(table.translate(number(n)));
        }
    });
    let touched = |w: &mut World<'_>| {
        w.map(0..PAGES, |a| a);
        w.store(0..PAGES);
    };
    emmu(&mut g, "emmu", PAGES, touched, |_| (), STORE);
    g.finish();
}

criterion_group!(
    benches,
    zero_read,
    anonymous_write,
    shared_write,
    cow,
    populate,
    page_fault,
    hit
);
criterion_main!(benches);
