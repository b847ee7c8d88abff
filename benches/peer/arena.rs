//! Where the peers' tables live: one block of zeroed, touched memory; a physical address is an
//! offset in it.

use std::{
    alloc::{Layout, alloc_zeroed},
    cell::RefCell,
    ptr,
    sync::atomic::{AtomicPtr, Ordering},
};

pub(crate) const PAGE: usize = 4096;
/// Enough for 64 Ki leaves and what is above them.
const FRAMES: usize = 70_000;

/// A plain static, so that a translation of an address costs the peers one load.
static BASE: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());

struct Arena {
    next: usize,
    free: Vec<usize>,
}

thread_local!(static ARENA: RefCell<Arena> = RefCell::new(Arena::new()));

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
        BASE.store(base, Ordering::Relaxed);
        Self {
            next: PAGE,
            free: Vec::with_capacity(FRAMES),
        }
    }
}

/// Gives every frame back.
pub(crate) fn reset() {
    ARENA.with_borrow_mut(|a| {
        a.next = PAGE;
        a.free.clear();
    });
}

pub(crate) fn alloc() -> Option<usize> {
    ARENA.with_borrow_mut(|a| {
        if let Some(frame) = a.free.pop() {
            return Some(frame);
        }
        let frame = a.next;
        a.next += PAGE;
        (frame < FRAMES * PAGE).then_some(frame)
    })
}

pub(crate) fn free(frame: usize) {
    ARENA.with_borrow_mut(|a| a.free.push(frame));
}

/// Where physical memory begins; there is none before the first frame was taken.
#[inline]
pub(crate) fn base() -> *mut u8 {
    BASE.load(Ordering::Relaxed)
}
