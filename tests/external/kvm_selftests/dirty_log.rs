//! `dirty_log_test`, `dirty_log_perf_test`, `dirty_log_page_splitting_test`, `kvm_page_table_test`.

use super::*;
use crate::common::RW;
use emmu::{Errno, extmmu::kvm::SlotError, mm::Advice};
use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
};

impl Guest {
    fn dirty(&mut self, id: u16) -> Vec<u64> {
        self.vm.dirty_log(&mut self.w.thread.cx(), id).unwrap()
    }
    fn peek(&mut self, id: u16) -> Vec<u64> {
        self.vm.peek_dirty_log(&mut self.w.thread.cx(), id).unwrap()
    }
    fn clear(&mut self, id: u16, pages: &[u64]) {
        let cx = &mut self.w.thread.cx();
        self.vm.clear_dirty_log(cx, id, pages).unwrap();
    }
    /// Runs `access` on guest frames, as a new processor does.
    fn run(&mut self, gfns: impl Iterator<Item = u64>, access: GuestAccess) {
        let mut cx = self.w.thread.cx();
        let vcpu = self.vm.vcpu(&mut cx);
        gfns.for_each(|gfn| touch(&mut cx, &vcpu, gfn, access));
    }
    /// Checks what the guest wrote to pages that have the numbers of their guest frames.
    fn check_written(&mut self, pages: u64) {
        for page in 0..pages {
            assert_eq!(self.w.get(page), Ok(byte_of(page)));
        }
    }
}

#[derive(Clone, Copy)]
enum GuestAccess {
    Read,
    Write,
}
use GuestAccess::{Read, Write};

/// The byte that a guest writes to a frame.
fn byte_of(gfn: u64) -> u8 {
    (gfn % 255) as u8 + 1
}

fn touch(cx: &mut CallCx<'_>, vcpu: &Vcpu, gfn: u64, access: GuestAccess) {
    match access {
        Read => vcpu.load(cx, gfn * PAGE).map(drop).unwrap(),
        Write => vcpu.store(cx, gfn * PAGE, byte_of(gfn)).unwrap(),
    }
}

/// The slot that logs, behind a slot with the variables that guest and host share.
const TEST: u16 = 1;
/// Its pages: no multiple of 64.
const PAGES: u64 = 272;
const BATCH: u32 = 64;

/// The guest writes the number of the iteration to random pages while the host takes the log.
fn log_while_running(take: fn(&mut Guest) -> Vec<u64>) {
    let mut g = Guest::new();
    g.w.map(0, PAGES + 1, RW);
    g.set(slot(0, 0, 1, 0, NONE));
    g.set(slot(TEST, 1, PAGES, 1, LOG));
    let (host, batches, done) = (g.host(), AtomicU64::new(0), AtomicBool::new(false));
    let (batches, done) = (&batches, &done);
    std::thread::scope(|s| {
        let stop = Stop(done);
        let cpu = host.vcpu(s, move |cx, vcpu| {
            let mut state = 1_u64;
            let store = |cx: &mut CallCx<'_>, page: u64| {
                let iteration = vcpu.load(cx, 0).unwrap();
                vcpu.store(cx, (1 + page) * PAGE, iteration).unwrap();
            };
            (0..PAGES).for_each(|page| store(cx, page));
            while !done.load(SeqCst) {
                for _ in 0..BATCH {
                    state = state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    store(cx, (state >> 33) % PAGES);
                }
                batches.fetch_add(1, SeqCst);
            }
        });
        let mut track = BTreeSet::new();
        for iteration in 1..=24 {
            g.w.put(0, iteration);
            // Two batches: the second began after the number was there.
            let before = batches.load(SeqCst);
            while batches.load(SeqCst) < before + 2 && !cpu.is_finished() {
                std::thread::yield_now();
            }
            let dirty: BTreeSet<u64> = take(&mut g).into_iter().collect();
            verify(&mut g, &dirty, &mut track, iteration);
        }
        drop(stop);
        cpu.join().unwrap();
    });
    g.end();
}

#[test]
fn dirty_log() {
    log_while_running(|g| g.dirty(TEST));
}

/// The log is read first, and cleared after.
#[test]
fn clear_log() {
    log_while_running(|g| {
        let dirty = g.peek(TEST);
        g.clear(TEST, &dirty);
        dirty
    });
}

/// Checks the bytes of all pages against the log: `track` has the pages that the next log must
/// have.
fn verify(g: &mut Guest, dirty: &BTreeSet<u64>, track: &mut BTreeSet<u64>, iteration: u8) {
    let mut under_way = 0;
    for page in 0..PAGES {
        let value = g.w.get(1 + page).unwrap();
        assert!(value <= iteration);
        let must = track.remove(&page);
        if dirty.contains(&page) {
            // The page of a store is in the log before the byte is in the page.
            under_way += u32::from(value + 1 < iteration);
        } else {
            assert!(!must, "page {page} was written before, and is in no log");
            if value == iteration {
                // Written just now.
                track.insert(page);
            }
        }
    }
    assert!(under_way <= 1, "one processor has one store under way");
}

/// Two slots of which each pass of the guest writes all, a part, or nothing.
#[test]
fn dirty_log_perf() {
    const EACH: u64 = 40;
    let mut g = Guest::new();
    g.w.map(0, 2 * EACH, RW);
    let slots =
        |flags| [0, 1].map(|id| slot(id, u64::from(id) * EACH, EACH, u64::from(id) * EACH, flags));
    slots(NONE).into_iter().for_each(|slot| g.set(slot));
    g.run(0..2 * EACH, Write);
    assert_eq!(g.entries(), 2 * EACH);
    slots(LOG).into_iter().for_each(|slot| g.set(slot));
    assert_eq!(g.entries(), 2 * EACH, "they are write-protected");
    assert!(g.dirty(0).is_empty() && g.dirty(1).is_empty());
    for part in [1, 3, 7] {
        g.run(0..2 * EACH, Read);
        assert!(g.dirty(0).is_empty() && g.dirty(1).is_empty());
        g.run((0..2 * EACH).step_by(part), Write);
        for id in 0..2 {
            let first = u64::from(id) * EACH;
            let written: Vec<u64> = (0..EACH)
                .filter(|page| (first + page).is_multiple_of(part as u64))
                .collect();
            // To set the slot as it is changes nothing.
            g.set(slots(LOG)[usize::from(id)]);
            assert_eq!(g.dirty(id), written);
        }
        assert!(g.dirty(0).is_empty() && g.dirty(1).is_empty());
    }
    slots(NONE).into_iter().for_each(|slot| g.set(slot));
    assert_eq!(g.entries(), 2 * EACH, "none could be a part of a huge one");
    g.run(0..2 * EACH, Write);
    g.check_written(2 * EACH);
    g.end();
}

/// A slot that moves takes its log along, as Linux's does (`kvm_prepare_memory_region`).
#[test]
fn a_slot_that_moves_keeps_its_log() {
    let mut g = Guest::new();
    g.w.map(0, 8, RW);
    g.set(slot(0, 0, 8, 0, LOG));
    g.run(2..5, Write);
    g.set(slot(0, 16, 8, 0, LOG));
    g.run(22..23, Write);
    assert_eq!(g.dirty(0), [2, 3, 4, 6]);
    // The end of logging is the end of the log.
    g.run(17..18, Write);
    g.set(slot(0, 16, 8, 0, NONE));
    g.set(slot(0, 16, 8, 0, LOG));
    assert!(g.dirty(0).is_empty());
    g.end();
}

/// What is read stays in the log, and is written without a fault, until it is cleared.
#[test]
fn clear_log_of_a_part() {
    let mut g = Guest::new();
    g.w.map(0, 8, RW);
    g.set(slot(0, 0, 8, 0, LOG));
    g.run(1..5, Write);
    let faults = g.vm.bill().refaults;
    for _ in 0..2 {
        assert_eq!(g.peek(0), [1, 2, 3, 4]);
        g.run(1..5, Write);
    }
    assert_eq!(g.vm.bill().refaults, faults);
    g.clear(0, &[2, 3, 7]);
    assert_eq!(g.peek(0), [1, 4]);
    g.run(3..4, Write);
    assert_eq!(g.dirty(0), [1, 3, 4]);
    assert!(g.peek(0).is_empty());
    let mut cx = g.w.thread.cx();
    let beyond = g.vm.clear_dirty_log(&mut cx, 0, &[8]).unwrap_err();
    assert_eq!(
        (beyond, beyond.errno()),
        (SlotError::Range(0), Errno::EINVAL)
    );
    g.set(slot(0, 0, 8, 0, NONE));
    for id in [0, 1] {
        let none = g.vm.peek_dirty_log(&mut g.w.thread.cx(), id).unwrap_err();
        assert_eq!((none, none.errno()), (SlotError::NoLog(id), Errno::ENOENT));
    }
    g.end();
}

/// A guest with huge pages from guest frame 0 on, one a slot.
fn of_huge(slots: u16, flags: SlotFlags) -> Vec<MemSlot> {
    let of = |id: u16| {
        let first = u64::from(id) * HUGE;
        slot(id, first, HUGE, first, flags)
    };
    (0..slots).map(of).collect()
}

/// Huge entries go when logging begins, and come back after it. Linux splits them at once, this
/// model when the guest uses their pages, as Linux does without `eager_page_split`.
#[test]
fn dirty_log_page_splitting() {
    const SLOTS: u16 = 2;
    const PAGES: u64 = SLOTS as u64 * HUGE;
    let mut g = Guest::new();
    g.w.map(0, PAGES, RW);
    g.w.advise(0, PAGES, Advice::HugePage).unwrap();
    of_huge(SLOTS, NONE)
        .into_iter()
        .for_each(|slot| g.set(slot));
    g.run(0..PAGES, Write);
    assert_eq!(g.entries(), 2, "2 MiB each");
    // A slot that does not log keeps its huge page.
    g.set(of_huge(SLOTS, LOG)[0]);
    assert_eq!(g.entries(), 1);
    g.set(of_huge(SLOTS, LOG)[1]);
    assert_eq!(g.entries(), 0);
    for _ in 0..2 {
        g.run(0..PAGES, Write);
        assert_eq!(g.entries(), PAGES, "4 KiB each");
        for id in 0..SLOTS {
            assert_eq!(g.dirty(id), (0..HUGE).collect::<Vec<_>>());
        }
    }
    of_huge(SLOTS, NONE)
        .into_iter()
        .for_each(|slot| g.set(slot));
    g.run(0..PAGES, Write);
    assert_eq!(g.entries(), 2);
    g.check_written(PAGES);
    g.end();
}

/// The first guest frame of `kvm_page_table`.
const FIRST: u64 = 4 * HUGE;

/// Runs a stage of `kvm_page_table` on two processors. `access` says how the one that writes, or
/// the other, uses a page.
fn stage(host: &Host, pages: u64, access: impl Fn(u64, bool) -> Option<GuestAccess> + Sync) {
    let access = &access;
    std::thread::scope(|s| {
        for writer in [true, false] {
            host.vcpu(s, move |cx, vcpu| {
                for page in 0..pages {
                    if let Some(how) = access(page, writer) {
                        touch(cx, vcpu, FIRST + page, how);
                    }
                }
            });
        }
    });
}

/// In each stage one of two processors writes and one reads, or both do the same: entries come,
/// become writable one by one while the slot logs, and are huge again.
#[test]
fn kvm_page_table() {
    for (large, count) in [(1, 64), (HUGE, 2)] {
        let pages = large * count;
        let mut g = Guest::new();
        g.w.map(0, pages, RW);
        g.w.advise(0, pages, Advice::HugePage).unwrap();
        let host = g.host();
        let set = |g: &mut Guest, flags| g.set(slot(1, FIRST, pages, 0, flags));
        set(&mut g, NONE);
        let is_first = |page: &u64| page.is_multiple_of(large);
        // KVM_CREATE_MAPPINGS
        stage(&host, pages, |page, writer| {
            is_first(&page).then_some(if writer { Write } else { Read })
        });
        assert_eq!(g.entries(), count);
        // KVM_UPDATE_MAPPINGS: writes the first page of each large one, and reads its second half.
        set(&mut g, LOG);
        assert_eq!(g.entries(), if large == 1 { count } else { 0 });
        let in_half = |page: &u64| page % large > large / 2;
        stage(&host, pages, |page, _| match is_first(&page) {
            true => Some(Write),
            false => in_half(&page).then_some(Read),
        });
        let read = (0..pages).filter(in_half).count() as u64;
        let written: Vec<u64> = (0..pages).filter(is_first).collect();
        assert_eq!(g.entries(), count + read);
        assert_eq!(g.dirty(1), written);
        // KVM_ADJUST_MAPPINGS
        set(&mut g, NONE);
        stage(&host, pages, |_, _| Some(Read));
        assert_eq!(g.entries(), count);
        for page in written {
            assert_eq!(g.w.get(page), Ok(byte_of(FIRST + page)));
        }
        g.end();
    }
}
