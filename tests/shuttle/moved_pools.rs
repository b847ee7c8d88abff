//! A huge page of a pool that moves while its mapping or its file changes. Afterwards the page is
//! where Linux would have it, mapped as one or not at all, and the pool has lost none.

use crate::run::{How, explore};
use emmu::{
    HugePoolConfig, HugeSize, Machine, MachineConfig, MemConfig, Mm, PAGE_SIZE,
    ctx::CallCx,
    file::{File, FileMode, HugetlbFile},
    mm::{MapFlags, MmapArgs, Prot},
};
use std::sync::Arc;

const BASE: u64 = 1 << 30;
const BYTES: u64 = 512 * PAGE_SIZE;
const POOL: u64 = 3;
/// A world with a huge page has many steps.
const FEW: [How; 2] = [How::Random(60), How::Pct(60)];

/// Moves the page of a file, mapped in this way, while `work` goes on. Afterwards page 0 holds one
/// of `bytes`, or there is none.
fn move_during(kind: MapFlags, work: fn(&Mm, &File, &mut CallCx<'_>), bytes: &[Option<u8>]) {
    let machine = Machine::new(MachineConfig {
        memory: MemConfig {
            frames: 512 * (POOL as u32 + 1),
            ..MemConfig::default()
        },
        huge_pages: HugePoolConfig {
            pages: POOL,
            overcommit: 0,
        },
        ..MachineConfig::default()
    });
    let mm = Mm::new(&machine);
    let object = HugetlbFile::memfd(machine.host(), "h", BYTES, HugeSize::Mib2).unwrap();
    let file = File::open(object, FileMode::ReadWrite);
    {
        let mut thread = machine.enter().unwrap();
        let mut cx = thread.cx();
        let mut args = MmapArgs::anonymous(BYTES).file(&file, 0).fixed(BASE);
        args.flags = kind | MapFlags::FIXED;
        mm.mmap(&mut cx, &args).unwrap();
        mm.store(&mut cx, BASE, 1).unwrap();
    }
    let (ma, mb) = (Arc::clone(&machine), Arc::clone(&machine));
    let (moving, changing) = (Arc::clone(&mm), Arc::clone(&mm));
    let changed = Arc::clone(&file);
    let moves = shuttle::thread::spawn(move || {
        let mut thread = ma.enter().unwrap();
        let _moved_or_not = moving.migrate(&mut thread.cx(), BASE);
    });
    let changes = shuttle::thread::spawn(move || {
        let mut thread = mb.enter().unwrap();
        work(&changing, &changed, &mut thread.cx());
    });
    moves.join().unwrap();
    changes.join().unwrap();
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let byte = mm.load(&mut cx, BASE).ok();
    assert!(bytes.contains(&byte), "{byte:?}");
    if byte.is_some() {
        mm.munmap(&mut cx, BASE, PAGE_SIZE)
            .expect_err("it is one page");
    }
    mm.exit(&mut cx);
    drop(file);
    let pool = machine.mem().huge_pool(HugeSize::Mib2);
    let counts = (pool.total, pool.free, pool.reserved);
    assert_eq!(counts, (POOL, POOL, 0), "pages are lost");
}

#[test]
fn move_of_a_file_against_truncate() {
    explore(&FEW, || {
        let cut = |_: &Mm, file: &File, cx: &mut CallCx<'_>| {
            file.truncate(cx.reborrow(), 0).unwrap();
        };
        move_during(MapFlags::SHARED, cut, &[None]);
    });
}

#[test]
fn move_against_a_store() {
    for kind in [MapFlags::SHARED, MapFlags::PRIVATE] {
        explore(&FEW, move || {
            let store = |mm: &Mm, _: &File, cx: &mut CallCx<'_>| mm.store(cx, BASE, 2).unwrap();
            move_during(kind, store, &[Some(2)]);
        });
    }
}

#[test]
fn move_against_fork_and_a_store() {
    explore(&FEW, || {
        let fork = |mm: &Mm, _: &File, cx: &mut CallCx<'_>| {
            let child = mm.fork(cx).unwrap();
            mm.store(cx, BASE, 2).unwrap();
            assert_eq!(child.load(cx, BASE), Ok(1));
            child.exit(cx);
        };
        move_during(MapFlags::PRIVATE, fork, &[Some(2)]);
    });
}

#[test]
fn move_against_mprotect() {
    explore(&FEW, || {
        let protect = |mm: &Mm, _: &File, cx: &mut CallCx<'_>| {
            mm.mprotect(cx, BASE, BYTES, Prot::READ).unwrap();
            mm.store(cx, BASE, 2).expect_err("read-only");
        };
        move_during(MapFlags::PRIVATE, protect, &[Some(1)]);
    });
}

#[test]
fn two_moves() {
    explore(&FEW, || {
        let moves = |mm: &Mm, _: &File, cx: &mut CallCx<'_>| {
            let _moved_or_not = mm.migrate(cx, BASE + PAGE_SIZE);
        };
        move_during(MapFlags::SHARED, moves, &[Some(1)]);
    });
}
