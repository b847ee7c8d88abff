//! Where the peers' tables live: one block of zeroed, touched memory; a physical address is an offset in it.

use std::{
    alloc::{Layout, alloc_zeroed},
    cell::UnsafeCell,
};

pub(crate) const PAGE: usize = 4096;
/// Enough for 64 Ki leaves and what is above them.
const FRAMES: usize = 70_000;

struct Arena {
    base: *mut u8,
    next: usize,
    free: Vec<usize>,
}

thread_local!(static ARENA: UnsafeCell<Arena> = UnsafeCell::new(Arena::new()));

impl Arena {
    fn new() -> Self {
        let layout = Layout::from_size_align(FRAMES * PAGE, 2 << 20).expect("sound");
        // SAFETY: the layout is not empty.
        let base = unsafe { alloc_zeroed(layout) };
        assert!(!base.is_null(), "no memory for the peers' tables");
        for frame in 0..FRAMES {
            // SAFETY: within the block. What the host needs to fetch a page is not to be measured.
            unsafe { base.add(frame * PAGE).write_volatile(0) };
        }
        Self {
            base,
            next: PAGE,
            free: Vec::with_capacity(FRAMES),
        }
    }
}

#[inline]
fn with<T>(f: impl FnOnce(&mut Arena) -> T) -> T {
    // SAFETY: one thread, and no function of this module calls another inside `f`.
    ARENA.with(|a| f(unsafe { &mut *a.get() }))
}

/// Gives every frame back.
pub(crate) fn reset() {
    with(|a| {
        a.next = PAGE;
        a.free.clear();
    });
}

pub(crate) fn alloc() -> Option<usize> {
    with(|a| {
        if let Some(frame) = a.free.pop() {
            return Some(frame);
        }
        let frame = a.next;
        a.next += PAGE;
        (frame < FRAMES * PAGE).then_some(frame)
    })
}

pub(crate) fn free(frame: usize) {
    with(|a| a.free.push(frame));
}

/// Where physical memory begins.
#[inline]
pub(crate) fn base() -> *mut u8 {
    with(|a| a.base)
}
