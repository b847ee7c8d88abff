//! Large pages of private memory that several threads split, each by another part.

use crate::run::{How, explore};
use emmu::{
    Machine, MachineConfig, MemConfig, Mm, PAGE_SIZE,
    ctx::CallCx,
    mm::{FolioPolicy, MmapArgs},
};
use std::sync::Arc;

const BASE: u64 = 1 << 30;
/// Pages of a folio.
const FOLIO: u64 = 16;

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
        folios: FolioPolicy::Always,
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
