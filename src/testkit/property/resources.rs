//! The resources of a device beside its translations: page faults that wait for an answer,
//! subscriptions, hardware that others use too.

use crate::{
    addr::PAGE_SIZE,
    ctx::CallCx,
    mm::{Mm, MmapArgs},
    notifier::Access,
    testkit::{
        Kit, patience,
        trial::{PAGES, Run, Trial, at},
        verdict::Seen,
    },
};
use std::sync::Arc;

/// The first page of a mapping of [`MANY`] pages.
const WIDE: u64 = 1000;
/// More than a queue has room for, or a cache.
const MANY: u64 = 512;
/// The first of many mappings, and the pages between two of them: 1 GiB.
const FAR: u64 = 1 << 20;
const APART: u64 = 1 << 18;

pub(super) fn page_faults(t: &Arc<Trial>, cx: &mut CallCx<'_>, _: &Kit) -> Run {
    t.act(cx, format!("mmap {WIDE}..{}", WIDE + MANY), |mm, cx| {
        let args = MmapArgs::anonymous(MANY * PAGE_SIZE).fixed(at(WIDE));
        mm.mmap(cx, &args).expect("room");
    });
    for round in 0..3 {
        raise(t, cx, if round == 0 { 1 } else { MANY });
        // Windows over pages that are waited for, and an access that has to wait as well.
        t.drop_pages(cx, WIDE, WIDE + MANY / 2);
        t.drop_pages(cx, 0, PAGES);
        t.elsewhere("an access behind many page faults", |t, cx| {
            t.agree(cx, 0);
            t.deliver(cx, 1, 7);
        })?;
        patience::until(t.deadline, || t.device.unsettled().is_none());
        settled(t);
        if t.log.has_seen() {
            return Ok(());
        }
    }
    raise(t, cx, 8);
    t.elsewhere("unregister", |t, cx| t.unregister(cx))?;
    settled(t);
    Ok(())
}

/// Has the device raise page faults for as many pages.
fn raise(t: &Arc<Trial>, cx: &mut CallCx<'_>, pages: u64) {
    t.act(
        cx,
        format!("the device raises {pages} page faults"),
        |mm, cx| {
            for page in 0..pages {
                let access = if page % 2 == 0 || t.only_reads() {
                    Access::Read
                } else {
                    Access::Write
                };
                t.device.raise_fault(cx, mm, at(WIDE + page), access);
            }
        },
    );
}

fn settled(t: &Trial) {
    if let Some(what) = t.device.unsettled() {
        t.see(Seen::Unsettled(what));
    }
}

/// A device may have subscriptions to what it has used last, and end them late, but not one for
/// each place that it has ever used.
pub(super) fn subscriptions(t: &Arc<Trial>, cx: &mut CallCx<'_>, _: &Kit) -> Run {
    t.fill(cx, 0, PAGES);
    t.agree(cx, 0);
    let before = t.mm.subscriptions();
    t.act(
        cx,
        format!("{MANY} times: mmap a page, the device uses it, munmap"),
        |mm, cx| (0..MANY).for_each(|nth| used_once(t, mm, cx, nth)),
    );
    t.agree(cx, 0);
    t.audit();
    let kept = t.mm.subscriptions().saturating_sub(before);
    if kept as u64 >= MANY {
        let what = format!("{kept} subscriptions are to memory that has gone");
        t.see(Seen::Unsettled(what));
    }
    Ok(())
}

fn used_once(t: &Trial, mm: &Mm, cx: &mut CallCx<'_>, nth: u64) {
    let addr = at(FAR + nth * APART);
    mm.mmap(cx, &MmapArgs::anonymous(PAGE_SIZE).fixed(addr))
        .expect("room");
    if let Err(why) = t.use_at(cx, addr, nth) {
        t.see(Seen::RefusedWrongly(format!(
            "an access to {addr:#x}: {why}"
        )));
    }
    mm.munmap(cx, addr, PAGE_SIZE).expect("mapped");
}

/// Whatever becomes of its pages while nothing of the device is loaded, it finds them as they are.
pub(super) fn displaced(t: &Arc<Trial>, cx: &mut CallCx<'_>, _: &Kit) -> Run {
    for round in 0..3_u8 {
        t.fill(cx, 0, PAGES);
        (0..PAGES).for_each(|page| t.agree(cx, page));
        t.act(cx, "other processes use the hardware", |mm, cx| {
            t.device.displace(cx, mm);
        });
        t.audit();
        t.drop_pages(cx, 0, 4);
        (0..4).for_each(|page| t.put(cx, page, 100 + round));
        let child = t.act(cx, "fork", |mm, cx| mm.fork(cx).expect("memory"));
        (4..8).for_each(|page| t.put(cx, page, 110 + round));
        t.audit();
        (0..PAGES).for_each(|page| t.agree(cx, page));
        t.deliver(cx, 9, 120 + round);
        child.exit(cx);
    }
    Ok(())
}
