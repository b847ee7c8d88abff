//! Aging: the accessed state of pages that the device uses.

use super::memory::{HUGE, fresh_huge};
use crate::{
    addr::PMD_PAGES,
    ctx::CallCx,
    frame::FrameFlags,
    mm::PageState,
    notifier::AgeKind,
    testkit::{
        Kit,
        trial::{PAGES, Run, Trial, at, pages},
        verdict::Seen,
    },
};
use std::sync::Arc;

pub(super) fn aging(t: &Arc<Trial>, cx: &mut CallCx<'_>, _: &Kit) -> Run {
    t.fill(cx, 0, PAGES);
    for round in 0..3 {
        for page in 0..4 {
            t.agree(cx, page);
            t.deliver(cx, page, round);
            // This clears the processor's bits too, so any remaining bit is the device's.
            let _was = ask(t, cx, page, AgeKind::ClearFlush);
            let came = match (page + u64::from(round)) % 2 {
                0 => t.read(cx, at(page)).is_ok(),
                _ => t.write(cx, at(page), 7).is_ok(),
            };
            if came && !ask(t, cx, page, AgeKind::Test) {
                t.see(Seen::Forgot(at(page)));
            }
            // A test does not clear.
            if came && !ask(t, cx, page, AgeKind::ClearFlush) {
                t.see(Seen::Forgot(at(page)));
            }
        }
    }
    // A range is asked for as a whole.
    let _was = t.mm.age(cx, pages(0, PAGES), AgeKind::ClearFlush);
    let used = t.read(cx, at(5)).is_ok();
    let young = t.act(cx, "age pages 0..16 (Test)", |mm, cx| {
        mm.age(cx, pages(0, PAGES), AgeKind::Test)
    });
    if used && !young {
        t.see(Seen::Forgot(at(5)));
    }
    unused(t, cx);
    others(t, cx);
    evicted(t, cx);
    of_a_huge_page(t, cx);
    Ok(())
}

/// A page whose accessed state was cleared is old until it is used again.
fn unused(t: &Arc<Trial>, cx: &mut CallCx<'_>) {
    for (page, kind) in [(0, AgeKind::ClearFlush), (1, AgeKind::Clear)] {
        t.agree(cx, page);
        let _was = ask(t, cx, page, kind);
        for again in [AgeKind::Test, kind] {
            if ask(t, cx, page, again) {
                t.see(Seen::StaysYoung(at(page)));
            }
        }
    }
}

/// Aging of one page leaves the others as they are.
fn others(t: &Arc<Trial>, cx: &mut CallCx<'_>) {
    const USED: u64 = 1;
    for aged in [0, 2, 3] {
        (0..4).for_each(|page| t.agree(cx, page));
        let _was = t.mm.age(cx, pages(0, 4), AgeKind::ClearFlush);
        let was_marked = is_marked(t, cx, USED);
        if t.read(cx, at(USED)).is_err() {
            continue;
        }
        let _was = ask(t, cx, aged, AgeKind::ClearFlush);
        if !ask(t, cx, USED, AgeKind::Test) && (was_marked || !is_marked(t, cx, USED)) {
            t.see(Seen::Forgot(at(USED)));
        }
    }
}

/// A use of one page of a huge page makes the whole young, and that page, also after a split.
fn of_a_huge_page(t: &Arc<Trial>, cx: &mut CallCx<'_>) {
    let all = pages(HUGE, HUGE + PMD_PAGES);
    fresh_huge(t, cx);
    for used in [0, 255, 511] {
        if used == 511 {
            t.drop_pages(cx, HUGE + 1, HUGE + 2);
            t.agree(cx, HUGE + used);
        }
        let _was = t.act(cx, "age the huge page (ClearFlush)", |mm, cx| {
            mm.age(cx, all, AgeKind::ClearFlush)
        });
        if t.read(cx, at(HUGE + used)).is_err() {
            continue;
        }
        let whole = t.mm.age(cx, all, AgeKind::Test);
        if !whole || !ask(t, cx, HUGE + used, AgeKind::Test) {
            t.see(Seen::Forgot(at(HUGE + used)));
        }
    }
}

/// Asks for the accessed state of one page.
fn ask(t: &Trial, cx: &mut CallCx<'_>, page: u64, kind: AgeKind) -> bool {
    t.act(cx, format!("age page {page} ({kind:?})"), |mm, cx| {
        mm.age(cx, pages(page, page + 1), kind)
    })
}

/// A device that gives an entry up to make room reports the use of the page to the frame.
fn evicted(t: &Arc<Trial>, cx: &mut CallCx<'_>) {
    for page in 0..4 {
        t.drop_pages(cx, page, page + 1);
        t.put(cx, page, 8);
        let _was = t.mm.age(cx, pages(page, page + 1), AgeKind::ClearFlush);
        if is_marked(t, cx, page) || t.read(cx, at(page)).is_err() {
            continue; // It was used before, or not now.
        }
        let others = (0..PAGES).filter(|other| *other != page);
        others.for_each(|other| t.agree(cx, other));
        let is_young = t.mm.age(cx, pages(page, page + 1), AgeKind::Test);
        if !is_young && !is_marked(t, cx, page) {
            t.see(Seen::Forgot(at(page)));
        }
    }
}

/// Returns true if the frame of a page has been reported as used.
fn is_marked(t: &Trial, cx: &mut CallCx<'_>, page: u64) -> bool {
    let entries = t.mm.pagemap(cx, pages(page, page + 1));
    let marked = |pfn| t.machine.mem().flags(pfn).contains(FrameFlags::ACCESSED);
    entries
        .iter()
        .any(|(_, state)| matches!(state, PageState::Anon(pfn) if marked(*pfn)))
}
