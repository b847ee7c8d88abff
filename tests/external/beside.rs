//! What other threads do to memory while a driver has addresses of it.

use emmu::{Mm, PAGE_SIZE as PAGE, mm::Advice};
use std::{
    ops::Range,
    sync::atomic::{AtomicBool, Ordering::Acquire},
    thread::{Scope, yield_now},
};

/// Moves, copies and swaps the pages of a range of addresses until `done`.
pub(crate) fn churn(mm: &Mm, range: Range<u64>, reclaimed: u64, done: &AtomicBool) {
    let machine = mm.machine();
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    while !done.load(Acquire) {
        for page in range.clone().step_by(PAGE as usize) {
            mm.migrate(&mut cx, page).unwrap();
        }
        let child = mm.fork(&mut cx).unwrap();
        child
            .write_bytes(&mut cx, range.start, &[0xdb; 64])
            .unwrap();
        child.exit(&mut cx);
        machine.reclaim(&mut cx, reclaimed);
    }
}

/// Drops the page at an address on another thread, and returns when the window over it is open.
pub(crate) fn begin_to_drop<'s>(s: &'s Scope<'s, '_>, mm: &'s Mm, page: u64) {
    s.spawn(move || {
        let mut thread = mm.machine().enter().unwrap();
        mm.madvise(&mut thread.cx(), page, PAGE, Advice::DontNeed)
            .unwrap();
    });
    while mm.windows_open() == 0 {
        yield_now();
    }
}
