//! Bytes of state for a mapped page beside the tables' entries: frames, reverse maps, VMAs, what
//! tables have beside entries, room that is kept. Frames have no contents. Linux takes 64 for
//! `struct page` alone.
//!
//! ```text
//! cargo bench --bench memory
//! ```
#![allow(unsafe_code)]

mod floor;
mod world;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicI64, Ordering},
};
use world::{World, with_world};

/// Bytes allocated and not given back.
static HELD: AtomicI64 = AtomicI64::new(0);

struct Counting;

// SAFETY: all is done by the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size() as i64, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size() as i64, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size() as i64, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        HELD.fetch_add(size as i64 - layout.size() as i64, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// 4 GiB of pages.
const PAGES: u64 = 1 << 20;
/// Bytes of a table's entries.
const TABLE: u64 = 4096;

fn state(name: &str, pages: u64, map: impl FnOnce(&mut World<'_>)) {
    with_world(|w| {
        let before = HELD.load(Ordering::Relaxed);
        map(w);
        let held = (HELD.load(Ordering::Relaxed) - before) as f64 / pages as f64;
        let tables = (w.mm.tables() as u64 * TABLE) as f64 / pages as f64;
        println!(
            "{name:<36} {:6.2} bytes a page, and {tables:6.2} of tables",
            held - tables,
        );
        assert_eq!(w.mm.machine().mem().in_use() as u64, pages);
    });
}

fn main() {
    state("anonymous, all touched", PAGES, |w| {
        w.map(0..PAGES, |a| a);
        w.store(0..PAGES);
    });
    state("anonymous, one page in 16 touched", PAGES / 16, |w| {
        w.map(0..PAGES, |a| a);
        (0..PAGES).step_by(16).for_each(|n| w.store(n..n + 1));
    });
    state("shared anonymous, all touched", PAGES, |w| {
        w.map(0..PAGES, emmu::mm::MmapArgs::shared);
        w.store(0..PAGES);
    });
    state("anonymous, forked", PAGES, |w| {
        w.map(0..PAGES, |a| a);
        w.store(0..PAGES);
        w.fork();
    });
}
