//! Properties of memory: bytes, sharing by forks, rights, huge pages, writes, references.

use crate::{
    addr::{PAGE_SIZE, PMD_PAGES, Vpn, VpnRange},
    ctx::CallCx,
    error::FaultError,
    file::{DiskFile, File, FileMode, MemStore},
    mm::{Advice, MmapArgs, MremapArgs, MremapFlags, PageState, Prot},
    testkit::{
        Kit,
        device::Refused,
        trial::{PAGES, Run, Trial, at},
        verdict::Seen,
    },
};
use std::sync::Arc;

/// The address of an aligned huge page, in pages.
pub(super) const HUGE: u64 = 4 * PMD_PAGES;

/// Pages of a huge page that are looked at.
const CORNERS: [u64; 7] = [0, 1, 255, 256, 257, 510, 511];
const HUGE_LEN: u64 = PMD_PAGES * PAGE_SIZE;

fn agree_in_corners(t: &Arc<Trial>, cx: &mut CallCx<'_>, first: u64) {
    CORNERS.iter().for_each(|n| t.agree(cx, first + n));
}

/// A huge page, written, and read by the device.
pub(super) fn fresh_huge(t: &Arc<Trial>, cx: &mut CallCx<'_>) {
    t.act(cx, "mmap a huge page at 2048, MADV_HUGEPAGE", |mm, cx| {
        mm.mmap(cx, &MmapArgs::anonymous(HUGE_LEN).fixed(at(HUGE)))
            .expect("room");
        mm.madvise(cx, at(HUGE), HUGE_LEN, Advice::HugePage)
            .expect("mapped");
    });
    for n in CORNERS {
        t.put(cx, HUGE + n, u8::try_from(n % 100 + 1).expect("small"));
    }
    agree_in_corners(t, cx, HUGE);
}

/// Bytes of a page that are looked at: the first and the last, and some in one word.
const OFFSETS: [u64; 6] = [0, 1, 7, 8, 2051, PAGE_SIZE - 1];

pub(super) fn bytes(t: &Arc<Trial>, cx: &mut CallCx<'_>, _: &Kit) -> Run {
    for round in 0..3_u8 {
        t.drop_pages(cx, 0, 4);
        for page in 0..4 {
            let mut bytes: [u8; OFFSETS.len()] = std::array::from_fn(|n| {
                let n = u8::try_from(n).expect("small");
                50 * round + 10 * u8::try_from(page).expect("small") + n + 1
            });
            for (offset, byte) in OFFSETS.into_iter().zip(bytes) {
                t.put_at(cx, at(page) + offset, byte);
            }
            OFFSETS
                .iter()
                .for_each(|offset| t.agree_at(cx, at(page) + offset));
            for (nth, offset) in OFFSETS.into_iter().enumerate() {
                // Each another one: a byte that is written elsewhere too shows there.
                bytes[nth] = 200 + 10 * round + u8::try_from(nth).expect("small");
                t.deliver_at(cx, at(page) + offset, bytes[nth]);
                for (offset, byte) in OFFSETS.into_iter().zip(bytes) {
                    t.undisturbed(cx, at(page) + offset, byte);
                }
            }
        }
        t.audit();
    }
    Ok(())
}

pub(super) fn huge_pages(t: &Arc<Trial>, cx: &mut CallCx<'_>, _: &Kit) -> Run {
    let parts: [(&str, u64, u64); 4] = [
        ("the middle", 256, 257),
        ("the first page", 0, 1),
        ("the last page", 511, 512),
        ("half", 0, 256),
    ];
    for (name, from, to) in parts {
        fresh_huge(t, cx);
        t.deliver(cx, HUGE + 256, 55);
        t.process(format!("{name} of the huge page is dropped"));
        t.drop_pages(cx, HUGE + from, HUGE + to);
        t.audit();
        agree_in_corners(t, cx, HUGE);
        for n in [from, to - 1] {
            t.put(cx, HUGE + n, 66);
        }
        agree_in_corners(t, cx, HUGE);
    }
    fresh_huge(t, cx);
    t.act(cx, "mprotect one page of it", |mm, cx| {
        let one = PAGE_SIZE;
        mm.mprotect(cx, at(HUGE + 257), one, Prot::READ)
            .expect("mapped");
    });
    t.audit();
    let came = t.write(cx, at(HUGE + 257), 1);
    t.refused("a write to a page that is read-only", came);
    agree_in_corners(t, cx, HUGE);
    shared_moved_collapsed(t, cx);
    Ok(())
}

/// A fork; a move of the whole; a collapse.
fn shared_moved_collapsed(t: &Arc<Trial>, cx: &mut CallCx<'_>) {
    fresh_huge(t, cx);
    let child = t.act(cx, "fork", |mm, cx| mm.fork(cx).expect("memory"));
    t.put(cx, HUGE + 1, 88);
    t.deliver(cx, HUGE + 256, 89);
    agree_in_corners(t, cx, HUGE);
    child.exit(cx);
    t.act(cx, "mremap the huge page", |mm, cx| {
        let args = MremapArgs {
            addr: at(HUGE),
            old_len: HUGE_LEN,
            new_len: HUGE_LEN,
            flags: MremapFlags::MAYMOVE | MremapFlags::FIXED,
            new_addr: at(2 * HUGE),
        };
        mm.mremap(cx, args).expect("room");
    });
    t.refused(
        "a read of the place that the huge page left",
        t.read(cx, at(HUGE + 1)),
    );
    agree_in_corners(t, cx, 2 * HUGE);
    t.act(cx, "MADV_COLLAPSE", |mm, cx| {
        // References may be in the way, as on Linux.
        let _busy = mm.madvise(cx, at(2 * HUGE), HUGE_LEN, Advice::Collapse);
    });
    t.audit();
    agree_in_corners(t, cx, 2 * HUGE);
}

pub(super) fn forks(t: &Arc<Trial>, cx: &mut CallCx<'_>, _: &Kit) -> Run {
    for round in 0..3 {
        t.fill(cx, 0, PAGES);
        (0..8).for_each(|page| t.agree(cx, page));
        (0..4).for_each(|page| t.deliver(cx, page, 30 + round));
        let child = t.act(cx, "fork", |mm, cx| mm.fork(cx).expect("memory"));
        let child_keeps = |cx: &mut CallCx<'_>, page: u64, wanted: u8| {
            let got = child.load(cx, at(page)).expect("mapped");
            if got != wanted {
                t.see(Seen::Allowed(format!(
                    "a write of {got} to page {page}, which a child shares"
                )));
            }
        };
        // The process copies the page that the device has for reading, and the device follows to
        // the copy.
        (0..2).for_each(|page| t.agree(cx, page));
        t.put(cx, 0, 90);
        t.agree(cx, 0);
        child_keeps(cx, 0, 30 + round);
        // The device writes, and the child keeps its old byte.
        t.deliver(cx, 1, 91);
        child_keeps(cx, 1, 30 + round);
        // The child copies, and nothing changes here.
        t.act(cx, "the child stores 92 to page 2", |_, cx| {
            child.store(cx, at(2), 92).expect("mapped");
        });
        t.agree(cx, 2);
        t.deliver(cx, 2, 93);
        // The child ends; the page may be written where it is.
        child.exit(cx);
        t.process("the child exits");
        t.agree(cx, 3);
        t.deliver(cx, 3, 94);
        t.audit();
    }
    Ok(())
}

pub(super) fn rights(t: &Arc<Trial>, cx: &mut CallCx<'_>, _: &Kit) -> Run {
    t.fill(cx, 0, PAGES);
    for round in 0..3_u8 {
        (0..4).for_each(|page| t.deliver(cx, page, 10 + round));
        let protect = |cx: &mut CallCx<'_>, prot: Prot| {
            t.act(cx, format!("mprotect 0..4 {prot:?}"), |mm, cx| {
                mm.mprotect(cx, at(0), 4 * PAGE_SIZE, prot).expect("mapped");
            });
        };
        protect(cx, Prot::READ);
        t.audit();
        t.agree(cx, 0);
        t.refused(
            "a write to a page that is read-only",
            t.write(cx, at(0), 99),
        );
        t.find(cx, at(0), 10 + round);
        protect(cx, Prot::empty());
        t.refused("a read of a page without rights", t.read(cx, at(1)));
        t.audit();
        // Given back: a refusal that was remembered is forgotten with the window of the change.
        protect(cx, Prot::READ | Prot::WRITE);
        t.agree(cx, 1);
        t.deliver(cx, 0, 60 + round);
        if t.device.declares().caches_refusals {
            protect(cx, Prot::READ);
            t.refused(
                "a write to a page that is read-only",
                t.write(cx, at(2), 99),
            );
            protect(cx, Prot::READ | Prot::WRITE);
            t.deliver(cx, 2, 61);
        }
    }
    mapped_anew(t, cx);
    Ok(())
}

/// A mapping where there was none opens no window: no refusal may be remembered.
fn mapped_anew(t: &Arc<Trial>, cx: &mut CallCx<'_>) {
    for _ in 0..2 {
        match t.read(cx, at(PAGES)) {
            Err(Refused::Fault(FaultError::NotMapped(_))) | Ok(_) => {}
            Err(other) => t.see(Seen::RefusedWrongly(format!(
                "a read of page {PAGES} with `{other}`: no mapping"
            ))),
        }
        t.refused("a read of an unmapped page", t.read(cx, at(PAGES)));
        t.refused("a write to an unmapped page", t.write(cx, at(PAGES), 1));
        t.act(cx, format!("mmap {PAGES}, next to the others"), |mm, cx| {
            let args = MmapArgs::anonymous(PAGE_SIZE).fixed(at(PAGES));
            mm.mmap(cx, &args).expect("room");
        });
        t.agree(cx, PAGES);
        t.deliver(cx, PAGES, 5);
        t.act(cx, format!("munmap {PAGES}"), |mm, cx| {
            mm.munmap(cx, at(PAGES), PAGE_SIZE).expect("mapped");
        });
    }
}

pub(super) fn dirty(t: &Arc<Trial>, cx: &mut CallCx<'_>, _: &Kit) -> Run {
    let host = t.machine.host();
    let store = Box::<MemStore>::default();
    let disk = DiskFile::new(host, "/d", 8 * PAGE_SIZE, store).expect("small");
    let file = File::open(disk.clone(), FileMode::ReadWrite);
    for page in 0..8 {
        file.write_at(cx.reborrow(), page * PAGE_SIZE, &[9])
            .expect("memory");
    }
    file.sync(cx.reborrow()).expect("written");
    t.act(cx, "mmap a file, shared, at 100..108", |mm, cx| {
        let args = MmapArgs::anonymous(8 * PAGE_SIZE).shared();
        mm.mmap(cx, &args.file(&file, 0).fixed(at(100)))
            .expect("room");
    });
    for round in 0..3_u8 {
        for page in 100..104 {
            deliver_to_file(t, cx, page, 20 + round);
        }
        t.act(cx, "msync", |_, cx| {
            file.sync(cx.reborrow()).expect("written");
        });
        // Clean now. The next write must be noticed again.
        deliver_to_file(t, cx, 100, 40 + round);
        t.act(cx, "msync", |_, cx| {
            file.sync(cx.reborrow()).expect("written");
        });
        if disk.dirty() > 0 {
            t.process(format!("{} pages are still dirty", disk.dirty()));
        }
        t.audit();
    }
    // Private memory: through swap, and dropped.
    t.fill(cx, 0, PAGES);
    for round in 0..3 {
        (0..8).for_each(|page| t.deliver(cx, page, 70 + round));
        t.advise(cx, 0, 8, Advice::PageOut);
        (0..8).for_each(|page| t.find(cx, at(page), 70 + round));
        (0..8).for_each(|page| t.deliver(cx, page, 80 + round));
        t.act(cx, "reclaim", |mm, cx| mm.machine().reclaim_all(cx));
        (0..8).for_each(|page| t.find(cx, at(page), 80 + round));
        t.drop_pages(cx, 8, 9);
    }
    t.act(cx, "munmap the file", |mm, cx| {
        mm.munmap(cx, at(100), 8 * PAGE_SIZE).expect("mapped");
    });
    t.act(cx, "truncate the file", |_, cx| {
        file.truncate(cx.reborrow(), 0).expect("nobody maps it");
    });
    Ok(())
}

/// Delivers a byte to a page of a file on disk, but by a device that may not write there: one that
/// pins pages for any time, and follows no window (`writable_file_mapping_allowed`).
fn deliver_to_file(t: &Trial, cx: &mut CallCx<'_>, page: u64, byte: u8) {
    let follows = t.device.declares().coherent || t.only_reads();
    if !follows && let Err(Refused::Fault(FaultError::Denied(_))) = t.write(cx, at(page), byte) {
        return;
    }
    t.deliver(cx, page, byte);
}

pub(super) fn references(t: &Arc<Trial>, cx: &mut CallCx<'_>, _: &Kit) -> Run {
    t.fill(cx, 0, PAGES);
    for _ in 0..3 {
        for page in 0..8 {
            t.agree(cx, page);
            t.deliver(cx, page, 3);
        }
        held(t, cx);
        t.drop_pages(cx, 2, 4);
        t.fill(cx, 0, PAGES);
        held(t, cx);
    }
    Ok(())
}

/// Compares references with mappings.
fn held(t: &Arc<Trial>, cx: &mut CallCx<'_>) {
    let range = VpnRange::new(Vpn::containing(at(0)), Vpn::containing(at(PAGES)));
    let mem = t.machine.mem();
    for (vpn, state) in t.mm.pagemap(cx, range.expect("not empty")) {
        if let PageState::Anon(pfn) = state {
            let extra = mem.refcount(pfn).saturating_sub(mem.mapcount(pfn));
            if extra > 0 && !cached_by_swap(t) {
                t.see(Seen::Held {
                    addr: vpn.addr(),
                    extra,
                });
            }
        }
    }
}

fn cached_by_swap(t: &Trial) -> bool {
    t.machine.mem().swap().cached() > 0
}
