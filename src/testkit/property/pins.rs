//! Pins: a device that pins has one pin for each translation that it shows, and no other.
//!
//! A device may deregister late, as callbacks cannot: the check counts after an access elsewhere.

use crate::{
    addr::{PAGE_SIZE, Pfn},
    ctx::CallCx,
    mm::{Advice, MmapArgs, PageState, Prot},
    testkit::{
        Kit,
        timed_thread::before_uses,
        trial::{PAGES, Run, Trial, at, pages},
        verdict::Seen,
    },
};
use std::sync::Arc;

/// The first page of a mapping that is larger than caches are.
const WIDE: u64 = 1000;
/// The pages of that mapping.
const MANY: u64 = 512;
/// A page of a mapping of its own, for the access before a count.
const ELSEWHERE: u64 = 2000;
/// The page of the races.
const PAGE: u64 = 3;
/// Moments of one access beside which others act in turn.
const MOMENTS: u32 = 6;

type Meanwhile = fn(&Arc<Trial>, &mut CallCx<'_>);

pub(super) fn pins(t: &Arc<Trial>, cx: &mut CallCx<'_>, _: &Kit) -> Run {
    for (from, n) in [(WIDE, MANY), (ELSEWHERE, 1)] {
        t.act(cx, format!("mmap {from}..{}", from + n), |mm, cx| {
            let args = MmapArgs::anonymous(n * PAGE_SIZE).fixed(at(from));
            mm.mmap(cx, &args).expect("room");
        });
    }
    t.fill(cx, 0, PAGES);
    (0..PAGES).for_each(|page| t.agree(cx, page));
    counted(t, cx, "pages are used");
    swept(t, cx);
    unmapped(t, cx);
    refused(t, cx);
    overtaken(t, cx)?;
    in_use(t, cx)?;
    Ok(())
}

/// Uses each page of a mapping, twice, by other strides.
fn sweep(t: &Trial, cx: &mut CallCx<'_>) {
    for (stride, nth) in [(1, 0), (7, 1)] {
        for page in 0..MANY {
            let addr = at(WIDE + page * stride % MANY);
            if let Err(why) = t.use_at(cx, addr, page + nth) {
                let what = format!("an access to {addr:#x}: {why}");
                t.see(Seen::RefusedWrongly(what));
            }
        }
    }
    t.process(format!("the device has used {MANY} pages, twice"));
}

/// More pages than are kept: what makes room gives its pins up, and is found no more.
fn swept(t: &Arc<Trial>, cx: &mut CallCx<'_>) {
    sweep(t, cx);
    counted(t, cx, "more pages are used than are kept");
    (0..PAGES).for_each(|page| t.agree(cx, page));
    counted(t, cx, "other pages are used again");
}

/// Pages whose mapping has gone are not kept.
fn unmapped(t: &Arc<Trial>, cx: &mut CallCx<'_>) {
    t.fill(cx, 0, PAGES);
    (0..PAGES).for_each(|page| t.agree(cx, page));
    let present = mapped(t, cx, 0, PAGES);
    t.drop_pages(cx, 0, PAGES);
    let _made = t.use_at(cx, at(ELSEWHERE), 0);
    for (_, pfn) in present {
        let pins = t.machine.mem().pins(pfn);
        // A frame that is used again for the page elsewhere has the pin of that.
        if pins > 0 && shown(t, pfn) == 0 {
            t.see(Seen::Pinned {
                what: format!("a page that was dropped, {pfn:?}"),
                pins,
                shown: 0,
            });
        }
    }
}

/// A registration that fails half-way leaves nothing.
fn refused(t: &Arc<Trial>, cx: &mut CallCx<'_>) {
    for page in 0..PAGES {
        t.fill(cx, 0, PAGES);
        protect(t, cx, page, Prot::empty());
        t.refused("a read of a page without rights", t.read(cx, at(page)));
        (0..PAGES).filter(|other| *other != page).for_each(|other| {
            t.agree(cx, other);
        });
        protect(t, cx, page, Prot::READ | Prot::WRITE);
        counted(t, cx, "a page between was refused");
    }
}

fn protect(t: &Arc<Trial>, cx: &mut CallCx<'_>, page: u64, prot: Prot) {
    t.act(cx, format!("mprotect page {page} {prot:?}"), |mm, cx| {
        mm.mprotect(cx, at(page), PAGE_SIZE, prot).expect("mapped");
    });
}

/// A look-up that a window overtakes, or another access, leaves nothing.
fn overtaken(t: &Arc<Trial>, cx: &mut CallCx<'_>) -> Run {
    let acts: [Meanwhile; 3] = [
        |t, cx| t.drop_pages(cx, PAGE, PAGE + 1),
        |t, cx| {
            let _moved = t.mm.migrate(cx, at(PAGE));
        },
        |t, cx| drop(t.read(cx, at(PAGE))),
    ];
    for act in acts {
        for nth in 1..=MOMENTS {
            t.drop_pages(cx, 0, PAGES);
            t.fill(cx, 0, PAGES);
            let (_came, looked_up) = t.between(nth..=nth, act, || t.read(cx, at(PAGE)))?;
            counted(t, cx, "a look-up was overtaken");
            t.drop_pages(cx, 0, PAGES);
            t.fill(cx, 0, PAGES);
            let (_came, locked) = t.beside(before_uses, nth, act, || t.read(cx, at(PAGE)))?;
            counted(t, cx, "a registration was overtaken");
            if !looked_up && !locked {
                break;
            }
        }
    }
    Ok(())
}

/// An access in progress keeps its pages, whatever becomes of what found them.
fn in_use(t: &Arc<Trial>, cx: &mut CallCx<'_>) -> Run {
    let acts: [Meanwhile; 3] = [
        |t, cx| sweep(t, cx),
        |t, cx| {
            t.drop_pages(cx, PAGE, PAGE + 1);
            t.drop_pages(cx, 0, PAGES);
        },
        |t, cx| {
            t.advise(cx, PAGE, PAGE + 1, Advice::DontNeed);
            let _made = t.read(cx, at(PAGE));
        },
    ];
    for act in acts {
        for nth in 1..=MOMENTS {
            t.fill(cx, 0, PAGES);
            t.agree(cx, PAGE);
            let (came, there_was) = t.beside(before_uses, nth, act, || t.read(cx, at(PAGE)))?;
            if let Err(why) = came {
                let what = format!("a read of page {PAGE} in progress: {why}");
                t.see(Seen::RefusedWrongly(what));
            }
            counted(t, cx, "others went on while a page was used");
            if !there_was {
                break;
            }
        }
    }
    Ok(())
}

/// Compares the pins of each page with the translations that the device shows.
fn counted(t: &Arc<Trial>, cx: &mut CallCx<'_>, when: &str) {
    let _made = t.use_at(cx, at(ELSEWHERE), 0);
    t.audit();
    for (from, n) in [(0, PAGES), (WIDE, MANY)] {
        for (addr, pfn) in mapped(t, cx, from, n) {
            let (pins, shown) = (t.machine.mem().pins(pfn), shown(t, pfn));
            if pins != shown {
                let what = format!("the page at {addr:#x}, after {when},");
                t.see(Seen::Pinned { what, pins, shown });
                return;
            }
        }
    }
}

/// Returns addresses and frames of the pages that are present.
pub(super) fn mapped(t: &Trial, cx: &mut CallCx<'_>, from: u64, n: u64) -> Vec<(u64, Pfn)> {
    let entries = t.mm.pagemap(cx, pages(from, from + n)).into_iter();
    let present = entries.filter_map(|(vpn, state)| match state {
        PageState::Anon(pfn) => Some((vpn.addr(), pfn)),
        _ => None,
    });
    present.collect()
}

/// Returns the number of translations that lead to a frame.
fn shown(t: &Trial, pfn: Pfn) -> u64 {
    let mut shown = 0;
    t.mmu
        .translations(&mut |translation| shown += u64::from(translation.leads_to(pfn)));
    shown
}
