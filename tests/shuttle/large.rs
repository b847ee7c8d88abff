//! Large pages that several threads split, each by another part, and one that reclaim gives up
//! while a fault maps it.

use crate::run::{How, explore};
use emmu::{
    Machine, MachineConfig, MemConfig, Mm, PAGE_SIZE,
    ctx::CallCx,
    file::{File, FileMode, HugePolicy, Shmem},
    mm::{Advice, FolioPolicies, FolioPolicy, FolioSize, MmapArgs},
};
use std::sync::Arc;

const BASE: u64 = 1 << 30;
/// Pages of a folio, and of a huge page.
const FOLIO: u64 = 16;
const HUGE: u64 = 512;

fn page(n: u64) -> u64 {
    BASE + n * PAGE_SIZE
}

/// Two threads split a folio at the same time, by its pages 0 and 8. Afterwards its pages are on
/// the lists of reclaim once each: all go to swap, and come back.
fn split_twice(split: fn(&Machine, &Mm, &mut CallCx<'_>, u64)) {
    let machine = Machine::new(MachineConfig {
        memory: MemConfig {
            frames: 63,
            swap: 32,
            ..MemConfig::default()
        },
        folios: FolioPolicies::default().with(FolioSize::Kib64, FolioPolicy::Always),
        ..MachineConfig::default()
    });
    let mm = Mm::new(&machine);
    {
        let mut thread = machine.enter().unwrap();
        let mut cx = thread.cx();
        let args = MmapArgs::anonymous(FOLIO * PAGE_SIZE).fixed(BASE);
        mm.mmap(&mut cx, &args).unwrap();
        (0..FOLIO).for_each(|n| mm.store(&mut cx, page(n), 7).unwrap());
    }
    let threads = [0, FOLIO / 2].map(|first| {
        let (machine, mm) = (Arc::clone(&machine), Arc::clone(&mm));
        shuttle::thread::spawn(move || {
            let mut thread = machine.enter().unwrap();
            split(&machine, &mm, &mut thread.cx(), first);
        })
    });
    threads.into_iter().for_each(|t| t.join().unwrap());
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    while machine.reclaim(&mut cx, 64) > 0 {}
    (0..FOLIO).for_each(|n| assert_eq!(mm.load(&mut cx, page(n)), Ok(7), "page {n}"));
    mm.exit(&mut cx);
    assert_eq!(machine.mem().in_use(), 0);
}

#[test]
fn merges_of_parts() {
    explore(&[How::Random(200), How::Pct(200)], || {
        split_twice(|machine, mm, cx, first| {
            machine.merge_same_pages(cx, &[(mm, page(first)), (mm, page(first + 1))]);
        });
    });
}

#[test]
fn migration_against_reclaim() {
    explore(&[How::Random(100), How::Pct(100)], || {
        split_twice(|machine, mm, cx, first| {
            if first == 0 {
                machine.reclaim(cx, 4);
            } else {
                let _moved_or_busy = mm.migrate(cx, page(first));
            }
        });
    });
}

/// A load maps a clean huge page of shared memory while reclaim gives it up. Afterwards reclaim
/// gives all of it up.
fn clean_page_mapped_again() {
    let machine = Machine::new(MachineConfig {
        memory: MemConfig {
            frames: 1023,
            swap: 1023,
            ..MemConfig::default()
        },
        ..MachineConfig::default()
    });
    let mm = Mm::new(&machine);
    let bytes = HUGE * PAGE_SIZE;
    let object = Shmem::tmpfs(machine.host(), "f", bytes, HugePolicy::Always).unwrap();
    let file = File::open(object, FileMode::ReadWrite);
    {
        let mut thread = machine.enter().unwrap();
        let mut cx = thread.cx();
        let args = MmapArgs::anonymous(bytes).file(&file, 0).shared();
        mm.mmap(&mut cx, &args.fixed(BASE)).unwrap();
        mm.load(&mut cx, BASE).unwrap();
        // The first frame is in use, so reclaim begins with another one.
        for _ in 0..2 {
            let used = mm.madvise(&mut cx, BASE, PAGE_SIZE, Advice::PopulateRead);
            used.unwrap();
        }
    }
    let (ma, mb) = (Arc::clone(&machine), Arc::clone(&machine));
    let loads = Arc::clone(&mm);
    let load = shuttle::thread::spawn(move || {
        let mut thread = ma.enter().unwrap();
        for n in 0..12 {
            loads.load(&mut thread.cx(), page(n)).unwrap();
        }
    });
    let reclaim = shuttle::thread::spawn(move || {
        mb.reclaim(&mut mb.enter().unwrap().cx(), 1);
    });
    load.join().unwrap();
    reclaim.join().unwrap();
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    for _ in 0..60 {
        machine.reclaim(&mut cx, 600);
    }
    assert_eq!(machine.mem().in_use(), 0, "pages that cannot be given up");
    mm.exit(&mut cx);
}

#[test]
fn load_against_reclaim_of_a_clean_page() {
    explore(&[How::Random(100), How::Pct(100)], clean_page_mapped_again);
}
