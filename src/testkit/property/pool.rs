//! Huge pages of a pool: private and of a file, copied, protected, given back.

use crate::{
    addr::{PAGE_SIZE, PMD_PAGES},
    ctx::CallCx,
    file::{File, FileMode, HugetlbFile},
    frame::HugeSize,
    mm::{Advice, MapFlags, MmapArgs, Prot},
    testkit::{
        Kit,
        trial::{Run, Trial, at},
        verdict::Seen,
    },
};
use std::sync::Arc;

/// The first page of two huge ones, behind which nothing is mapped.
const HUGE: u64 = 4 * PMD_PAGES;
const SECOND: u64 = HUGE + PMD_PAGES;
const BEHIND: u64 = SECOND + PMD_PAGES;
const BYTES: u64 = PMD_PAGES * PAGE_SIZE;
/// Pages of a huge page that are looked at.
const CORNERS: [u64; 5] = [0, 1, 256, 510, 511];
/// Pages of the pool.
const POOL: u64 = 6;

pub(super) fn pool_pages(t: &Arc<Trial>, cx: &mut CallCx<'_>, _: &Kit) -> Run {
    t.process(format!("a pool of {POOL} huge pages"));
    if t.machine.mem().set_huge_pages(HugeSize::Mib2, POOL) < POOL {
        return Ok(());
    }
    private(t, cx);
    of_a_file(t, cx);
    t.process("the pool is given up");
    t.machine.mem().set_huge_pages(HugeSize::Mib2, 0);
    Ok(())
}

fn agree(t: &Trial, cx: &mut CallCx<'_>, first: u64) {
    CORNERS.iter().for_each(|n| t.agree(cx, first + n));
}
fn deliver(t: &Trial, cx: &mut CallCx<'_>, first: u64, byte: u8) {
    CORNERS.iter().for_each(|n| t.deliver(cx, first + n, byte));
}

fn private(t: &Arc<Trial>, cx: &mut CallCx<'_>) {
    t.act(cx, "mmap two huge pages at 2048, MAP_HUGETLB", |mm, cx| {
        let args = MmapArgs::anonymous(2 * BYTES).fixed(at(HUGE));
        mm.mmap(cx, &args.flags(MapFlags::HUGETLB)).expect("room");
    });
    for first in [HUGE, SECOND] {
        CORNERS.iter().for_each(|n| t.put(cx, first + n, 7));
        agree(t, cx, first);
        deliver(t, cx, first, 8);
    }
    for n in CORNERS {
        let came = t.read(cx, at(BEHIND + n));
        t.refused("a read behind the huge pages", came);
    }
    t.audit();
    forked(t, cx);
    t.act(cx, "mprotect the first one", |mm, cx| {
        mm.mprotect(cx, at(HUGE), BYTES, Prot::READ).expect("whole");
    });
    t.audit();
    let came = t.write(cx, at(HUGE + 256), 1);
    t.refused("a write to a page that is read-only", came);
    agree(t, cx, HUGE);
    t.act(cx, "munmap the second one", |mm, cx| {
        mm.munmap(cx, at(SECOND), BYTES).expect("whole");
    });
    for n in CORNERS {
        let came = t.read(cx, at(SECOND + n));
        t.refused("a read of a huge page that is unmapped", came);
    }
    agree(t, cx, HUGE);
    t.advise(cx, HUGE, HUGE + PMD_PAGES, Advice::DontNeed);
    agree(t, cx, HUGE);
    t.act(cx, "munmap the first one", |mm, cx| {
        mm.munmap(cx, at(HUGE), BYTES).expect("whole");
    });
    t.audit();
}

/// A copy is one of the whole page, wherever the byte lies.
fn forked(t: &Arc<Trial>, cx: &mut CallCx<'_>) {
    let child = t.act(cx, "fork", |mm, cx| mm.fork(cx).expect("memory"));
    t.put(cx, HUGE + 1, 30);
    agree(t, cx, HUGE);
    deliver(t, cx, HUGE, 31);
    deliver(t, cx, SECOND, 32);
    for first in [HUGE, SECOND] {
        for n in CORNERS {
            let got = child.load(cx, at(first + n)).expect("mapped");
            if got != 8 {
                t.see(Seen::Allowed(format!(
                    "a write of {got} to page {}, which a child shares",
                    first + n
                )));
            }
        }
    }
    child.exit(cx);
    t.process("the child exits");
    t.audit();
    deliver(t, cx, SECOND, 33);
}

fn of_a_file(t: &Arc<Trial>, cx: &mut CallCx<'_>) {
    let object = HugetlbFile::memfd(t.machine.host(), "h", 2 * BYTES, HugeSize::Mib2);
    let file = File::open(object.expect("small"), FileMode::ReadWrite);
    t.act(cx, "mmap a file of two huge pages, shared", |mm, cx| {
        let args = MmapArgs::anonymous(2 * BYTES).shared().fixed(at(HUGE));
        mm.mmap(cx, &args.file(&file, 0)).expect("room");
    });
    for round in 0..2_u8 {
        deliver(t, cx, HUGE, 50 + round);
        deliver(t, cx, SECOND, 60 + round);
        t.act(cx, "punch a hole, all of the first one", |_, cx| {
            file.punch_hole(cx.reborrow(), 0, BYTES).expect("whole");
        });
        t.audit();
        agree(t, cx, HUGE);
        agree(t, cx, SECOND);
    }
    t.act(cx, "cut the file behind the first one", |_, cx| {
        file.truncate(cx.reborrow(), BYTES).expect("whole");
    });
    t.audit();
    for n in CORNERS {
        let came = t.read(cx, at(SECOND + n));
        t.refused("a read beyond the end of a file", came);
    }
    agree(t, cx, HUGE);
    t.act(cx, "munmap the file", |mm, cx| {
        mm.munmap(cx, at(HUGE), 2 * BYTES).expect("whole");
    });
}
