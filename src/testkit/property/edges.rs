//! Both ends of the address space, and pages that lie far apart.

use crate::{
    addr::{PAGE_SIZE, TASK_PAGES},
    ctx::CallCx,
    mm::{Advice, MmapArgs},
    testkit::{
        Kit,
        trial::{Run, Trial},
    },
};
use std::sync::Arc;

pub(super) fn edges(t: &Arc<Trial>, cx: &mut CallCx<'_>, _: &Kit) -> Run {
    let top = (TASK_PAGES - 1) * PAGE_SIZE;
    for addr in [0, top] {
        t.act(cx, format!("mmap {addr:#x}"), |mm, cx| {
            let args = MmapArgs::anonymous(PAGE_SIZE).fixed(addr);
            mm.mmap(cx, &args).expect("the first and the last page");
        });
        for byte in 1..4 {
            t.act(cx, format!("store {byte} to {addr:#x}"), |mm, cx| {
                mm.store(cx, addr, byte).expect("mapped");
            });
            t.agree_at(cx, addr);
            t.deliver_at(cx, addr + 1, byte);
            t.act(cx, format!("madvise {addr:#x} DontNeed"), |mm, cx| {
                mm.madvise(cx, addr, PAGE_SIZE, Advice::DontNeed)
                    .expect("mapped");
            });
            t.agree_at(cx, addr);
        }
        t.act(cx, format!("munmap {addr:#x}"), |mm, cx| {
            mm.munmap(cx, addr, PAGE_SIZE).expect("mapped");
        });
        t.refused("a read of an unmapped page", t.read(cx, addr));
        t.audit();
    }
    far_apart(t, cx);
    Ok(())
}

/// Pages whose numbers differ in higher bits alone are other pages.
fn far_apart(t: &Arc<Trial>, cx: &mut CallCx<'_>) {
    const FIRST: u64 = 3 << 21;
    let pages = [0, 1 << 16, 1 << 20, 1 << 32].map(|apart| (FIRST + apart) * PAGE_SIZE);
    for (byte, addr) in (1..).zip(pages) {
        t.act(cx, format!("mmap {addr:#x}, store {byte}"), |mm, cx| {
            let args = MmapArgs::anonymous(PAGE_SIZE).fixed(addr);
            mm.mmap(cx, &args).expect("nothing is there");
            mm.store(cx, addr, byte).expect("mapped");
        });
    }
    for _ in 0..2 {
        pages.into_iter().for_each(|addr| t.agree_at(cx, addr));
    }
    for addr in pages {
        t.act(cx, format!("munmap {addr:#x}"), |mm, cx| {
            mm.munmap(cx, addr, PAGE_SIZE).expect("mapped");
        });
    }
    t.audit();
}
