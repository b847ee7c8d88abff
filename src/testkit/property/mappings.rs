//! Memory that a user maps for the device, pinned until it is unmapped; and the report of the pages
//! that a device has written.

use super::pins;
use crate::{
    addr::{PAGE_SIZE, VpnRange},
    ctx::CallCx,
    mm::MmapArgs,
    notifier::Access,
    sync::{AtomicBool, Ordering},
    testkit::{
        Kit,
        device::Refused,
        timed_thread::TimedThread,
        trial::{PAGES, Run, Trial, at, pages},
        verdict::Seen,
    },
};
use std::sync::Arc;

/// The page that is in use while others unmap.
const PAGE: u64 = 3;

pub(super) fn mappings(t: &Arc<Trial>, cx: &mut CallCx<'_>, _: &Kit) -> Run {
    for round in 0..3_u8 {
        t.fill(cx, 0, PAGES);
        map(t, cx, (0, PAGES), Access::Write);
        (0..PAGES).for_each(|page| current(t, cx, page));
        (0..4).for_each(|page| t.deliver(cx, page, 30 + round));
        pinned(t, cx, "it was mapped", 1);
        unmap(t, cx, (0, PAGES));
        pinned(t, cx, "it was unmapped", 0);
        // Others may have the frames by now.
        t.drop_pages(cx, 0, PAGES);
        (0..PAGES).for_each(|page| t.put(cx, page, 100 + round));
        (0..PAGES).for_each(|page| current(t, cx, page));
        unmap(t, cx, (0, PAGES));
    }
    half_way(t, cx);
    shows_stores(t, cx);
    in_use(t, cx)
}

fn map(t: &Trial, cx: &mut CallCx<'_>, (from, to): (u64, u64), access: Access) {
    t.process(format!(
        "the user maps {from}..{to} for the device, {access:?}"
    ));
    if let Err(why) = t.device.map(cx, &t.mm, pages(from, to), access) {
        let what = format!("a mapping of {from}..{to}: {why}");
        t.see(Seen::RefusedWrongly(what));
    }
    t.listen();
}

fn unmap(t: &Trial, cx: &mut CallCx<'_>, (from, to): (u64, u64)) {
    t.process(format!("the user unmaps {from}..{to}"));
    if let Err(why) = t.device.unmap(cx, &t.mm, pages(from, to)) {
        let what = format!("an unmapping of {from}..{to}: {why}");
        t.see(Seen::RefusedWrongly(what));
    }
    t.listen();
}

/// Checks that the device reads the process's byte of a page whose mapping has not changed since
/// the user mapped it: also a device that does not follow its address space.
fn current(t: &Trial, cx: &mut CallCx<'_>, page: u64) {
    let addr = at(page);
    let wanted = t.mm.load(cx, addr).expect("mapped");
    match t.read(cx, addr) {
        Ok(got) if got == wanted => {}
        Ok(got) => t.see(Seen::Stale { addr, got, wanted }),
        Err(why) => t.see(Seen::RefusedWrongly(format!(
            "a read of page {page}: {why}"
        ))),
    }
}

/// Checks the pins of each page: 0, or 1.
fn pinned(t: &Trial, cx: &mut CallCx<'_>, when: &str, wanted: u64) {
    for (addr, pfn) in pins::mapped(t, cx, 0, PAGES) {
        let pins = t.machine.mem().pins(pfn);
        if pins != wanted {
            let what = format!("the page at {addr:#x}, after {when},");
            let shown = wanted;
            return t.see(Seen::Pinned { what, pins, shown });
        }
    }
}

/// A mapping that meets a hole leaves nothing.
fn half_way(t: &Trial, cx: &mut CallCx<'_>) {
    for hole in [PAGES - 1, PAGE] {
        t.fill(cx, 0, PAGES);
        t.act(cx, format!("munmap {hole}"), |mm, cx| {
            mm.munmap(cx, at(hole), PAGE_SIZE).expect("mapped");
        });
        let came = t.device.map(cx, &t.mm, pages(0, PAGES), Access::Write);
        t.process(format!("the user maps 0..{PAGES}: {came:?}"));
        match came {
            Ok(()) => t.see(Seen::Allowed(
                "a mapping of pages that are not there".into(),
            )),
            Err(Refused::Fault(_)) => {}
            Err(why) => t.see(Seen::RefusedWrongly(format!(
                "with `{why}`: no memory is there"
            ))),
        }
        pinned(t, cx, "a mapping failed", 0);
        t.act(cx, format!("mmap {hole} anew"), |mm, cx| {
            let args = MmapArgs::anonymous(PAGE_SIZE).fixed(at(hole));
            mm.mmap(cx, &args).expect("room");
        });
    }
}

/// A page that is mapped for reading is the process's own: it shows later stores.
fn shows_stores(t: &Arc<Trial>, cx: &mut CallCx<'_>) {
    t.fill(cx, 0, PAGES);
    let child = t.act(cx, "fork", |mm, cx| mm.fork(cx).expect("memory"));
    // A page that was never written as well.
    t.drop_pages(cx, 2, 4);
    map(t, cx, (0, 4), Access::Read);
    (0..4).for_each(|page| current(t, cx, page));
    (0..4).for_each(|page| t.put(cx, page, 200));
    (0..4).for_each(|page| current(t, cx, page));
    child.exit(cx);
    unmap(t, cx, (0, 4));
}

/// An unmapping of a page in use waits, and takes nothing that was mapped meanwhile.
fn in_use(t: &Arc<Trial>, cx: &mut CallCx<'_>) -> Run {
    t.fill(cx, 0, PAGES);
    map(t, cx, (0, 8), Access::Write);
    let ended = Arc::new(AtomicBool::new(false));
    let mut unmapping: Option<TimedThread<()>> = None;
    let held = t.device.hold(cx, &t.mm, at(PAGE), &mut |cx| {
        let tell = Arc::clone(&ended);
        let thread = t.let_pass(move |t, cx| {
            unmap(t, cx, (0, PAGES));
            tell.store(true, Ordering::SeqCst);
        });
        if ended.load(Ordering::SeqCst) {
            let what = format!("an unmapping to end while the device uses page {PAGE}");
            t.see(Seen::Allowed(what));
        }
        map(t, cx, (8, 12), Access::Write);
        unmapping = Some(thread);
    });
    if let Some(thread) = unmapping {
        thread.join()?;
    }
    if held {
        let mapped = pins::mapped(t, cx, 8, 4);
        let lost = mapped
            .iter()
            .find(|(_, pfn)| t.machine.mem().pins(*pfn) == 0);
        if let Some((addr, _)) = lost {
            let what = format!("an unmapping to take the page at {addr:#x}, mapped since");
            t.see(Seen::Allowed(what));
        }
    }
    t.device.unmap(cx, &t.mm, pages(0, PAGES)).ok();
    pinned(t, cx, "all was unmapped", 0);
    Ok(())
}

pub(super) fn dirty_log(t: &Arc<Trial>, cx: &mut CallCx<'_>, _: &Kit) -> Run {
    t.fill(cx, 0, PAGES);
    if t.device.declares().maps {
        map(t, cx, (0, PAGES), Access::Write);
    }
    let all = pages(0, PAGES);
    let _before = t.device.take_written(cx, &t.mm, all);
    for round in 0..3_u8 {
        // Two that are written each time, and one that was not before.
        let wrote = [1, 2, 9 + u64::from(round)];
        wrote
            .iter()
            .for_each(|page| t.deliver(cx, *page, 40 + round));
        t.agree(cx, 5);
        let reported = t.device.take_written(cx, &t.mm, all);
        t.process(format!("the device reports as written: {reported:?}"));
        for page in wrote {
            let has = |range: &VpnRange| range.overlaps(pages(page, page + 1));
            if !reported.iter().any(has) {
                t.see(Seen::Allowed(format!(
                    "a write to page {page} that the next report of written pages does not have"
                )));
            }
        }
    }
    Ok(())
}
