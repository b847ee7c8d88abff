//! `memslot_modification_stress_test`, `memslot_perf_test`, `mmu_stress_test`: slots come, go and
//! move, and their pages go, while processors run.

use super::*;
use crate::common::RW;
use emmu::mm::{Advice, Prot};
use std::{
    ops::Range,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
};

#[test]
fn memslot_modification_stress() {
    const CPUS: u64 = 2;
    const EACH: u64 = 16;
    let mut g = Guest::new();
    g.w.map(0, CPUS * EACH + 1, RW);
    g.set(slot(0, 1, CPUS * EACH, 1, NONE));
    let (host, done) = (g.host(), AtomicBool::new(false));
    let done = &done;
    std::thread::scope(|s| {
        let stop = Stop(done);
        let run = |cpu: u64| {
            host.vcpu(s, move |cx, vcpu| {
                let mut rounds = 0_u8;
                while !done.load(SeqCst) || rounds == 0 {
                    rounds = rounds.wrapping_add(1).max(1);
                    for n in 0..EACH {
                        let gpa = (1 + cpu * EACH + n) * PAGE;
                        vcpu.store(cx, gpa, rounds).unwrap();
                        assert_eq!(vcpu.load(cx, gpa), Ok(rounds));
                    }
                }
            })
        };
        let cpus: Vec<_> = (0..CPUS).map(run).collect();
        for _ in 0..100 {
            // Just below the memory that is used.
            g.set(slot(7, 0, 1, 0, NONE));
            g.delete(7);
        }
        drop(stop);
        cpus.into_iter().for_each(|cpu| cpu.join().unwrap());
    });
    // The kernel's change of a slot that is in no use leaves the entries of others.
    assert_eq!(g.entries(), CPUS * EACH);
    g.end();
}

/// The memory of `memslot_perf_test`: many slots, whose order in the process is the reverse of that
/// in the guest.
const SLOTS: u64 = 16;
const OF_SLOT: u64 = 8;
const PAGES: u64 = SLOTS * OF_SLOT;
const VAL_1: u8 = 0x11;
const VAL_2: u8 = 0x22;

/// The page of the process behind a guest frame.
fn page_of(gfn: u64) -> u64 {
    let slot = gfn / OF_SLOT;
    (SLOTS - 1 - slot) * OF_SLOT + gfn % OF_SLOT
}

fn many_slots() -> Guest {
    let mut g = Guest::new();
    g.w.map(0, PAGES, RW);
    for id in 0..SLOTS {
        let gfn = id * OF_SLOT;
        let id = u16::try_from(id).unwrap();
        g.set(slot(id, gfn, OF_SLOT, page_of(gfn), NONE));
    }
    g
}

/// Drops the pages behind guest frames, as many at a time, slot by slot.
fn unmap(g: &mut Guest, gfns: Range<u64>, chunk: u64) {
    for first in gfns.clone().step_by(chunk as usize) {
        let mut gfn = first;
        let end = (first + chunk).min(gfns.end);
        while gfn < end {
            let part = (OF_SLOT - gfn % OF_SLOT).min(end - gfn);
            g.w.advise(page_of(gfn), part, Advice::DontNeed).unwrap();
            gfn += part;
        }
    }
}

/// Checks the byte that the guest wrote, and clears it.
fn check(g: &mut Guest, gfn: u64, byte: u8) {
    assert_eq!(g.w.get(page_of(gfn)), Ok(byte), "guest frame {gfn}");
    g.w.put(page_of(gfn), 0);
}

/// Runs a guest that writes to each half of the memory in turn: the frames that `of_half` returns.
fn halves(of_half: fn(Range<u64>) -> Range<u64>, round: impl Fn(&mut Guest, &HostSync)) {
    let mut g = many_slots();
    let (host, (sync, guest)) = (g.host(), rendezvous());
    std::thread::scope(|s| {
        let cpu = host.vcpu(s, move |cx, vcpu| {
            let parts = [(0..PAGES / 2, VAL_1), (PAGES / 2..PAGES, VAL_2)];
            for (half, byte) in parts.into_iter().cycle() {
                for gfn in of_half(half) {
                    vcpu.store(cx, gfn * PAGE, byte).unwrap();
                }
                if !guest.sync() {
                    break;
                }
            }
        });
        for _ in 0..6 {
            round(&mut g, &sync);
        }
        drop(sync);
        cpu.join().unwrap();
    });
    g.end();
}

#[test]
fn memslot_perf_map() {
    halves(
        |half| half,
        |g, sync| {
            // The guest maps one half while the host drops the other.
            unmap(g, PAGES / 2..PAGES, PAGES);
            sync.sync();
            check(g, 0, VAL_1);
            check(g, PAGES / 2 - 1, VAL_1);
            unmap(g, 0..PAGES / 2, PAGES);
            sync.sync();
            check(g, PAGES / 2, VAL_2);
            check(g, PAGES - 1, VAL_2);
        },
    );
}

fn unmap_in_chunks(g: &mut Guest, sync: &HostSync, chunk: u64) {
    sync.sync();
    check(g, 0, VAL_1);
    unmap(g, 0..PAGES / 2, chunk);
    sync.sync();
    check(g, PAGES / 2, VAL_2);
    unmap(g, PAGES / 2..PAGES, chunk);
}

#[test]
fn memslot_perf_unmap() {
    let first = |half: Range<u64>| half.start..half.start + 1;
    halves(first, |g, sync| unmap_in_chunks(g, sync, 1));
}

/// A chunk has parts of several slots.
#[test]
fn memslot_perf_unmap_chunked() {
    let first = |half: Range<u64>| half.start..half.start + 1;
    halves(first, |g, sync| unmap_in_chunks(g, sync, 3 * OF_SLOT / 2));
}

/// Where the last slot of `memslot_perf_test` is, and where it moves.
const HOME: u64 = PAGES - OF_SLOT;
const AWAY: u64 = 1 << 20;

fn move_last(g: &mut Guest, gfn: u64) {
    let last = u16::try_from(SLOTS - 1).unwrap();
    g.set(slot(last, gfn, OF_SLOT, page_of(HOME), NONE));
}

/// The guest writes to some frames while the last slot moves away and back. Returns the guest
/// addresses that were in no slot.
fn write_while_moving(g: &mut Guest, area: &Range<u64>) -> Vec<u64> {
    let (host, done) = (g.host(), AtomicBool::new(false));
    let done = &done;
    std::thread::scope(|s| {
        let stop = Stop(done);
        let cpu = host.vcpu(s, move |cx, vcpu| {
            let mut missed = Vec::new();
            while !done.load(SeqCst) {
                for gfn in area.clone() {
                    match vcpu.store(cx, gfn * PAGE, VAL_1) {
                        Ok(()) => (),
                        Err(Exit::Mmio(gpa)) => missed.push(gpa),
                        Err(exit) => panic!("{exit}"),
                    }
                }
            }
            missed
        });
        for _ in 0..50 {
            move_last(g, AWAY);
            move_last(g, HOME);
        }
        drop(stop);
        cpu.join().unwrap()
    })
}

/// Moves the last slot while the guest writes to 8 pages from `first` on, and then step by step.
/// Returns the guest addresses that were in no slot.
fn moving(first: u64) -> Vec<u64> {
    let mut g = many_slots();
    let area = first..first + OF_SLOT;
    let mut missed = write_while_moving(&mut g, &area);
    let (homed, stays): (Vec<u64>, Vec<u64>) = area.clone().partition(|gfn| *gfn >= HOME);
    let vcpu = g.vm.vcpu(&mut g.w.thread.cx());
    for gfn in area {
        vcpu.store(&mut g.w.thread.cx(), gfn * PAGE, VAL_1).unwrap();
    }
    move_last(&mut g, AWAY);
    let mut cx = g.w.thread.cx();
    for gfn in &homed {
        let gone = vcpu.store(&mut cx, gfn * PAGE, VAL_2);
        assert_eq!(gone, Err(Exit::Mmio(gfn * PAGE)));
        missed.push(gfn * PAGE);
        // The page is where its slot is.
        let there = (AWAY + gfn - HOME) * PAGE;
        assert_eq!(vcpu.load(&mut cx, there), Ok(VAL_1));
    }
    for gfn in &stays {
        vcpu.store(&mut cx, gfn * PAGE, VAL_2).unwrap();
    }
    move_last(&mut g, HOME);
    homed.into_iter().for_each(|gfn| check(&mut g, gfn, VAL_1));
    stays.into_iter().for_each(|gfn| check(&mut g, gfn, VAL_2));
    g.end();
    missed.sort_unstable();
    missed.dedup();
    missed
}

/// Half of the area is in the slot that moves.
#[test]
fn memslot_perf_move_active_area() {
    let first = HOME - OF_SLOT / 2;
    let in_slot: Vec<u64> = (HOME..first + OF_SLOT).map(|gfn| gfn * PAGE).collect();
    assert_eq!(moving(first), in_slot);
}

/// The area ends where the slot that moves begins.
#[test]
fn memslot_perf_move_inactive_area() {
    assert!(moving(HOME - OF_SLOT).is_empty());
}

#[test]
fn memslot_perf_rw() {
    let mut g = many_slots();
    let (host, (sync, guest)) = (g.host(), rendezvous());
    std::thread::scope(|s| {
        let cpu = host.vcpu(s, move |cx, vcpu| {
            loop {
                for gfn in 0..PAGES {
                    vcpu.store(cx, gfn * PAGE, VAL_1).unwrap();
                }
                if !guest.sync() {
                    break;
                }
                for gfn in 0..PAGES {
                    let gpa = gfn * PAGE + PAGE / 2;
                    assert_eq!(vcpu.load(cx, gpa), Ok(VAL_2));
                    vcpu.store(cx, gpa, 0).unwrap();
                }
                if !guest.sync() {
                    break;
                }
            }
        });
        for _ in 0..4 {
            for gfn in 0..PAGES {
                let half = at(page_of(gfn)) + PAGE / 2;
                g.w.mm.store(&mut g.w.thread.cx(), half, VAL_2).unwrap();
            }
            sync.sync();
            for gfn in 0..PAGES {
                check(&mut g, gfn, VAL_1);
            }
            sync.sync();
        }
        drop(sync);
        cpu.join().unwrap();
    });
    g.end();
}

/// The code of a processor in `mmu_stress_test`, for its part of the guest's memory.
fn stress(cx: &mut CallCx<'_>, vcpu: &Vcpu, gfns: Range<u64>, sync: &GuestSync, ro: &AtomicBool) {
    let store = |cx: &mut CallCx<'_>, gfn: u64| vcpu.store(cx, gfn * PAGE, gfn as u8);
    for _ in 0..2 {
        for gfn in gfns.clone() {
            store(cx, gfn).unwrap();
        }
        assert!(sync.sync());
    }
    for gfn in gfns.clone() {
        vcpu.load(cx, gfn * PAGE).unwrap();
    }
    // The memory becomes read-only meanwhile. Once it is, each store of a pass fails.
    loop {
        let all = ro.load(SeqCst);
        for gfn in gfns.clone() {
            match store(cx, gfn) {
                Ok(()) => assert!(!all, "a store to memory that is read-only"),
                Err(Exit::Fault { gpa, .. }) => assert_eq!(gpa, gfn * PAGE),
                Err(exit) => panic!("{exit}"),
            }
        }
        if all {
            break;
        }
    }
    assert_eq!(vcpu.load(cx, gfns.start * PAGE).map(drop), Ok(()));
    assert!(sync.sync());
    // The host makes it writable while the guest waits for the next rendezvous.
    assert!(sync.sync());
    for gfn in gfns {
        store(cx, gfn).unwrap();
    }
    assert!(sync.sync());
}

/// Many slots have the same pages of the process.
#[test]
fn mmu_stress() {
    const SLOTS: u64 = 8;
    const EACH: u64 = 16;
    const CPUS: u64 = 2;
    let mut g = Guest::new();
    g.w.share(0, EACH);
    g.w.advise(0, EACH, Advice::NoHugePage).unwrap();
    for id in 0..SLOTS {
        g.set(slot(id as u16, id * EACH, EACH, 0, NONE));
    }
    let (host, ro) = (g.host(), AtomicBool::new(false));
    let ro = &ro;
    std::thread::scope(|s| {
        let all = SLOTS * EACH;
        let stop = Stop(ro);
        let run = |cpu: u64| {
            let (sync, guest) = rendezvous();
            let part = cpu * all / CPUS..(cpu + 1) * all / CPUS;
            let code = move |cx: &mut CallCx<'_>, vcpu: &Vcpu| stress(cx, vcpu, part, &guest, ro);
            (sync, host.vcpu(s, code))
        };
        let cpus: Vec<_> = (0..CPUS).map(run).collect();
        let all_sync = || cpus.iter().for_each(|(sync, _)| sync.sync());
        all_sync();
        all_sync();
        g.w.protect(0, EACH, Prot::READ).unwrap();
        drop(stop);
        all_sync();
        g.w.protect(0, EACH, RW).unwrap();
        all_sync();
        all_sync();
        for (sync, cpu) in cpus {
            drop(sync);
            cpu.join().unwrap();
        }
    });
    assert_eq!(g.entries(), SLOTS * EACH);
    // What is removed leaves nothing, and the rest goes with the process.
    for id in (0..SLOTS).step_by(2) {
        g.delete(id as u16);
    }
    assert_eq!(g.entries(), SLOTS / 2 * EACH);
    g.w.munmap(0, EACH / 2).unwrap();
    assert_eq!(g.entries(), SLOTS / 2 * EACH / 2);
    g.end();
}
