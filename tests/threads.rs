//! Several threads on one address space: nothing written is lost, nothing leaks, nothing panics.

mod common;

use common::{PAGE, RW, at, machine};
use emmu::{
    Mm,
    mm::{Advice, MmapArgs, Prot},
};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
};

/// Pages that each thread has for itself, more than two leaves.
const OWN: u64 = 1200;

/// Writes, reads back, changes rights, discards and unmaps within its own pages.
fn worker(mm: &Mm, lane: u64, rounds: u64) {
    let mut thread = mm.machine().enter().unwrap();
    let cx = &mut thread.cx();
    let base = lane * OWN;
    let mut seed = lane + 1;
    for round in 0..rounds {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let page = base + (seed >> 33) % OWN;
        let byte = 1 + (round % 255) as u8;
        mm.store(cx, at(page), byte).unwrap();
        assert_eq!(
            mm.load(cx, at(page)),
            Ok(byte),
            "lane {lane}, round {round}"
        );
        match round % 64 {
            7 => {
                mm.mprotect(cx, at(page), PAGE, Prot::READ).unwrap();
                assert_eq!(mm.load(cx, at(page)), Ok(byte));
                mm.mprotect(cx, at(page), PAGE, RW).unwrap();
            }
            23 => {
                mm.madvise(cx, at(base), OWN * PAGE, Advice::DontNeed)
                    .unwrap();
                assert_eq!(mm.load(cx, at(page)), Ok(0));
            }
            41 => {
                let args = MmapArgs::anonymous(PAGE).fixed(at(page));
                mm.mmap(cx, &args).unwrap();
                assert_eq!(mm.load(cx, at(page)), Ok(0));
            }
            _ => {}
        }
    }
}

#[test]
fn each_thread_finds_what_it_wrote() {
    let machine = machine(1 << 15);
    let mut thread = machine.enter().unwrap();
    let cx = &mut thread.cx();
    let mm = Mm::new(&machine);
    mm.mmap(cx, &MmapArgs::anonymous(4 * OWN * PAGE).fixed(at(0)))
        .unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|s| {
        let lanes: Vec<_> = (0..3)
            .map(|lane| {
                let mm = &mm;
                s.spawn(move || worker(mm, lane, 20_000))
            })
            .collect();
        // Children come and go meanwhile: every page of the workers is shared and copied again and again.
        let (mm, done) = (&mm, &done);
        let forker = s.spawn(move || {
            let mut thread = mm.machine().enter().unwrap();
            let cx = &mut thread.cx();
            while !done.load(SeqCst) {
                let child = mm.fork(cx).unwrap();
                child.store(cx, at(5), 9).unwrap();
                child.exit(cx);
            }
        });
        for lane in lanes {
            let ok = lane.join();
            done.store(true, SeqCst);
            ok.unwrap();
        }
        forker.join().unwrap();
    });
    mm.exit(cx);
    assert_eq!((machine.mem().in_use(), mm.tables()), (0, 0));
    assert_eq!(machine.commit().pages(), 0);
}

#[test]
fn threads_that_fault_the_same_pages_agree_on_one_frame() {
    let machine = machine(1 << 12);
    let mut thread = machine.enter().unwrap();
    let cx = &mut thread.cx();
    for _ in 0..50 {
        let mm = Mm::new(&machine);
        mm.mmap(cx, &MmapArgs::anonymous(64 * PAGE).fixed(at(0)))
            .unwrap();
        std::thread::scope(|s| {
            for lane in 0..3_u64 {
                let mm: &Arc<Mm> = &mm;
                s.spawn(move || {
                    let mut thread = mm.machine().enter().unwrap();
                    let cx = &mut thread.cx();
                    for n in 0..64 {
                        mm.store(cx, at(n) + lane, 1).unwrap();
                    }
                });
            }
        });
        let mut bytes = [0; 3];
        for n in 0..64 {
            mm.read_bytes(cx, at(n), &mut bytes).unwrap();
            assert_eq!(bytes, [1; 3], "page {n}");
        }
        assert_eq!(machine.mem().in_use(), 64);
        drop(mm);
        assert_eq!(machine.mem().in_use(), 0);
    }
}
