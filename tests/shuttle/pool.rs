//! Faults on a huge page of a pool while its file is cut.

use crate::run::{How, explore};
use emmu::{
    FaultError, HugePoolConfig, HugeSize, Machine, MachineConfig, MemConfig, Mm,
    file::{File, FileMode, HugetlbFile},
    mm::{MapFlags, MmapArgs},
};
use std::sync::Arc;

const BASE: u64 = 1 << 30;
const BYTES: u64 = 512 * emmu::PAGE_SIZE;
const POOL: u64 = 2;
/// A world with a huge page has many steps.
const FEW: [How; 2] = [How::Random(60), How::Pct(60)];

/// A fault maps no page beyond the end, whichever of the two comes first, and the pool gets its page
/// back.
fn fault_and_truncate(kind: MapFlags) {
    let machine = Machine::new(MachineConfig {
        memory: MemConfig {
            frames: 3 * 512,
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
        let mut args = MmapArgs::anonymous(BYTES).file(&file, 0).fixed(BASE);
        args.flags = kind | MapFlags::FIXED;
        mm.mmap(&mut thread.cx(), &args).unwrap();
    }
    let beyond = Err(FaultError::Beyond(BASE));
    let (ma, mb) = (Arc::clone(&machine), Arc::clone(&machine));
    let (faults, cuts) = (Arc::clone(&mm), Arc::clone(&file));
    let fault = shuttle::thread::spawn(move || {
        let mut thread = ma.enter().unwrap();
        faults.store(&mut thread.cx(), BASE, 1)
    });
    let cut = shuttle::thread::spawn(move || {
        let mut thread = mb.enter().unwrap();
        cuts.truncate(thread.cx(), 0).unwrap();
    });
    cut.join().unwrap();
    let stored = fault.join().unwrap();
    assert!(
        stored.is_ok() || stored == beyond.map(|_: u8| ()),
        "{stored:?}"
    );
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    assert_eq!(mm.load(&mut cx, BASE), beyond, "mapped beyond the end");
    mm.exit(&mut cx);
    drop(file);
    let pool = machine.mem().huge_pool(HugeSize::Mib2);
    assert_eq!((pool.free, pool.reserved), (POOL, 0), "pages are lost");
}

#[test]
fn shared_fault_against_truncate() {
    explore(&FEW, || fault_and_truncate(MapFlags::SHARED));
}

#[test]
fn private_fault_against_truncate() {
    explore(&FEW, || fault_and_truncate(MapFlags::PRIVATE));
}
