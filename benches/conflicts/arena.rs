//! The allocator of a traced program: an arena for each thread, each block on lines of its own,
//! and no memory used twice. So no line of a trace has two objects, and none was another object
//! before. The lists of a real allocator are left out of what is compared.
//!
//! The trace shows addresses and sizes of accesses, no values. So the program touches marks, and
//! the reader of the trace knows by them what goes on.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    ptr::{null_mut, write_volatile},
    sync::atomic::{AtomicU8, AtomicUsize, Ordering::Relaxed},
};

/// Bytes of a cache line.
pub(crate) const LINE: usize = 64;
/// Bytes of an arena; what is not touched is not there.
const ARENA: usize = 256 << 20;
/// Arenas: the main thread's, and those of two sides, in as many worlds.
const ARENAS: usize = 8;

/// What the program touches to say what it does.
#[repr(align(64))]
pub(crate) struct Marks {
    /// An operation begins.
    pub(crate) begin: AtomicU8,
    /// An operation has ended.
    pub(crate) end: AtomicU8,
    /// A block was allocated: the next two bytes that are stored to are its first and its last.
    pub(crate) block: AtomicU8,
}

pub(crate) static MARKS: Marks = Marks {
    begin: AtomicU8::new(0),
    end: AtomicU8::new(0),
    block: AtomicU8::new(0),
};

/// The next free byte of an arena; 0 before its memory was asked for.
#[repr(align(64))]
struct Next(AtomicUsize);

static NEXT: [Next; ARENAS] = [const { Next(AtomicUsize::new(0)) }; ARENAS];
/// Whether blocks come from arenas; the reader of a trace uses the system's allocator.
static ON: Next = Next(AtomicUsize::new(0));

thread_local!(static MINE: Cell<usize> = const { Cell::new(0) });

/// Has the arenas used from here on.
pub(crate) fn switch_on() {
    ON.0.store(1, Relaxed);
}
/// Has this thread use an arena of its own.
pub(crate) fn use_arena(nth: usize) {
    MINE.with(|mine| mine.set(nth));
}

/// Has this thread use the other half of its arena from here on: a process that is forked does not
/// take memory that its parent takes later.
pub(crate) fn use_other_half() {
    let next = &NEXT[MINE.with(Cell::get)].0;
    next.store(next.load(Relaxed) + ARENA / 2, Relaxed);
}

pub(crate) struct Arenas;

fn carve(layout: Layout) -> *mut u8 {
    let next = &NEXT[MINE.with(Cell::get)].0;
    if next.load(Relaxed) == 0 {
        let arena = Layout::from_size_align(ARENA, LINE).expect("a power of two");
        // SAFETY: its size is not 0. Nothing gives it back.
        next.store(unsafe { System.alloc(arena) }.expose_provenance(), Relaxed);
    }
    let at = next
        .load(Relaxed)
        .next_multiple_of(layout.align().max(LINE));
    let size = layout.size().max(1);
    next.store(at + size.next_multiple_of(LINE), Relaxed);
    let block: *mut u8 = std::ptr::with_exposed_provenance_mut(at);
    MARKS.block.store(1, Relaxed);
    // SAFETY: the block is the caller's alone, and larger than 0. A new block is all zero.
    unsafe { write_volatile(block, 0) };
    // SAFETY: it is the last byte of the block.
    let last = unsafe { block.add(size - 1) };
    // SAFETY: as above.
    unsafe { write_volatile(last, 0) };
    block
}

// SAFETY: blocks are of the size and alignment asked for, and no two of them overlap.
unsafe impl GlobalAlloc for Arenas {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match ON.0.load(Relaxed) {
            // SAFETY: as the caller promises.
            0 => unsafe { System.alloc(layout) },
            _ => carve(layout),
        }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        match ON.0.load(Relaxed) {
            // SAFETY: as the caller promises.
            0 => unsafe { System.alloc_zeroed(layout) },
            // An arena is fresh memory of the system.
            _ => carve(layout),
        }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        if ON.0.load(Relaxed) == 0 {
            // SAFETY: as the caller promises.
            unsafe { System.dealloc(at, layout) };
        }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if ON.0.load(Relaxed) == 0 {
            // SAFETY: as the caller promises.
            return unsafe { System.realloc(at, layout, size) };
        }
        let Ok(wanted) = Layout::from_size_align(size, layout.align()) else {
            return null_mut();
        };
        let new = carve(wanted);
        // SAFETY: both are at least as large, and the new one is nobody else's.
        unsafe { std::ptr::copy_nonoverlapping(at, new, layout.size().min(size)) };
        new
    }
}
