//! Operations of two threads on one address space, without a device: a fork against a truncation,
//! faults against a mapping that goes and comes. Small enough to be swept.

use crate::run::{How, explore};
use emmu::{
    FaultError, Machine, MachineConfig, MemConfig, Mm,
    ctx::CallCx,
    file::{DiskFile, File, FileMode, MemStore, Shmem},
    mm::MmapArgs,
};
use std::sync::Arc;

const BASE: u64 = 1 << 30;
const PAGE: u64 = emmu::PAGE_SIZE;

fn world() -> (Arc<Machine>, Arc<Mm>) {
    let machine = Machine::new(MachineConfig {
        memory: MemConfig {
            frames: 16,
            swap: 4,
            ..MemConfig::default()
        },
        ..MachineConfig::default()
    });
    let mm = Mm::new(&machine);
    (machine, mm)
}

/// Runs both at the same time.
fn race<T: Send + 'static>(
    machine: &Arc<Machine>,
    a: impl FnOnce(&mut CallCx<'_>) -> T + Send + 'static,
    b: impl FnOnce(&mut CallCx<'_>) + Send + 'static,
) -> T {
    let (ma, mb) = (Arc::clone(machine), Arc::clone(machine));
    let a = shuttle::thread::spawn(move || a(&mut ma.enter().unwrap().cx()));
    let b = shuttle::thread::spawn(move || b(&mut mb.enter().unwrap().cx()));
    b.join().unwrap();
    a.join().unwrap()
}

/// What is truncated while the child is made is not in the child.
fn fork_and_truncate() {
    let (machine, mm) = world();
    let file = Shmem::memfd(machine.host(), "m", PAGE).unwrap();
    let file = File::open(file, FileMode::ReadWrite);
    {
        let mut thread = machine.enter().unwrap();
        let mut cx = thread.cx();
        let private = MmapArgs::anonymous(PAGE).file(&file, 0).fixed(BASE);
        mm.mmap(&mut cx, &private).unwrap();
        mm.store(&mut cx, BASE, 1).unwrap();
    }
    let (parent, cut) = (Arc::clone(&mm), Arc::clone(&file));
    let child = race(
        &machine,
        move |cx| parent.fork(cx).unwrap(),
        move |cx| cut.truncate(cx.reborrow(), 0).unwrap(),
    );
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    for (who, mm) in [("parent", &mm), ("child", &child)] {
        let there = mm.load(&mut cx, BASE);
        let beyond = matches!(there, Err(FaultError::Beyond(_)));
        assert!(beyond, "the {who} has what was truncated: {there:?}");
    }
    child.exit(&mut cx);
    mm.exit(&mut cx);
    assert_eq!(machine.mem().in_use(), 0, "frames are left");
}

/// A fault finds the mapping or does not; nothing is mapped where no mapping is.
fn fault_and_remap() {
    let (machine, mm) = world();
    let anonymous = MmapArgs::anonymous(PAGE).fixed(BASE);
    {
        let mut thread = machine.enter().unwrap();
        mm.mmap(&mut thread.cx(), &anonymous).unwrap();
    }
    let (maps, faults) = (Arc::clone(&mm), Arc::clone(&mm));
    race(
        &machine,
        move |cx| maps.munmap(cx, BASE, PAGE).unwrap(),
        move |cx| {
            let _refused = faults.store(cx, BASE, 1);
        },
    );
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    assert_eq!(machine.mem().in_use(), 0, "a page without a mapping");
    mm.mmap(&mut cx, &anonymous).unwrap();
    assert_eq!(mm.load(&mut cx, BASE), Ok(0), "what was there before");
    mm.exit(&mut cx);
    assert_eq!(machine.mem().in_use(), 0, "frames are left");
}

/// A mapping that comes where another one goes has its own pages only, and loses none to that one's
/// end.
fn map_and_unmap() {
    let (machine, mm) = world();
    let anonymous = MmapArgs::anonymous(PAGE).fixed(BASE);
    {
        let mut thread = machine.enter().unwrap();
        let mut cx = thread.cx();
        mm.mmap(&mut cx, &anonymous).unwrap();
        mm.store(&mut cx, BASE, 1).unwrap();
    }
    let (unmaps, maps) = (Arc::clone(&mm), Arc::clone(&mm));
    race(
        &machine,
        move |cx| unmaps.munmap(cx, BASE, PAGE).unwrap(),
        move |cx| {
            maps.mmap(cx, &MmapArgs::anonymous(PAGE).fixed(BASE))
                .unwrap();
            if maps.store(cx, BASE, 2).is_ok() {
                let there = maps.load(cx, BASE);
                assert!(there.is_err() || there == Ok(2), "a lost page: {there:?}");
            }
        },
    );
    let mut thread = machine.enter().unwrap();
    mm.exit(&mut thread.cx());
    assert_eq!(machine.mem().in_use(), 0, "frames are left");
}

/// Two pages of a file on a disk, none of them in memory, mapped shared.
fn on_disk() -> (Arc<Machine>, Arc<Mm>, Arc<File>) {
    let (machine, mm) = world();
    let store = Box::<MemStore>::default();
    let file = DiskFile::new(machine.host(), "/d", 0, store).unwrap();
    let file = File::open(file, FileMode::ReadWrite);
    {
        let mut thread = machine.enter().unwrap();
        let mut cx = thread.cx();
        for page in 0..2 {
            file.write_at(cx.reborrow(), page * PAGE, &[7]).unwrap();
        }
        file.sync(cx.reborrow()).unwrap();
        machine.reclaim_all(&mut cx);
        let args = MmapArgs::anonymous(2 * PAGE).file(&file, 0).fixed(BASE);
        mm.mmap(&mut cx, &args.shared()).unwrap();
    }
    (machine, mm, file)
}

/// A page is faulted in while it is cut out of the file: what it had is not read back.
fn fault_and_cut(cut: impl FnOnce(&mut CallCx<'_>, &File) + Send + 'static) {
    let (machine, mm, file) = on_disk();
    let (faults, cuts) = (Arc::clone(&mm), Arc::clone(&file));
    let seen = race(
        &machine,
        move |cx| faults.load(cx, BASE + PAGE),
        move |cx| cut(cx, &cuts),
    );
    let known = matches!(seen, Ok(7 | 0) | Err(FaultError::Beyond(_)));
    assert!(known, "nobody wrote that: {seen:?}");
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    file.truncate(cx.reborrow(), 2 * PAGE).unwrap();
    let there = mm.load(&mut cx, BASE + PAGE);
    assert_eq!(there, Ok(0), "what was cut out came back");
    mm.exit(&mut cx);
    drop(file);
    assert_eq!(machine.mem().in_use(), 0, "frames are left");
}

/// A page of shared memory is written while it is cut off: nothing is left beyond the end.
fn store_and_cut() {
    let (machine, mm) = world();
    let file = Shmem::memfd(machine.host(), "m", 2 * PAGE).unwrap();
    let file = File::open(file, FileMode::ReadWrite);
    {
        let mut thread = machine.enter().unwrap();
        let shared = MmapArgs::anonymous(2 * PAGE).file(&file, 0).fixed(BASE);
        mm.mmap(&mut thread.cx(), &shared.shared()).unwrap();
    }
    let (faults, cuts) = (Arc::clone(&mm), Arc::clone(&file));
    race(
        &machine,
        move |cx| {
            let _refused = faults.store(cx, BASE + PAGE, 1);
        },
        move |cx| cuts.truncate(cx.reborrow(), PAGE).unwrap(),
    );
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    file.truncate(cx.reborrow(), 2 * PAGE).unwrap();
    let there = mm.load(&mut cx, BASE + PAGE);
    assert_eq!(there, Ok(0), "a page beyond the end");
    mm.exit(&mut cx);
    drop(file);
    assert_eq!(machine.mem().in_use(), 0, "frames are left");
}

/// Clean pages of a file are looked up by a fault while reclaim gives them up and their frames
/// become others' memory.
fn look_up_and_reclaim() {
    let (machine, mm, file) = on_disk();
    let other = Mm::new(&machine);
    {
        let mut thread = machine.enter().unwrap();
        let mut cx = thread.cx();
        // Into the cache, and out of the page table.
        let mut bytes = [0; 2 * PAGE as usize];
        file.read_at(cx.reborrow(), 0, &mut bytes).unwrap();
        let args = MmapArgs::anonymous(2 * PAGE).fixed(BASE);
        other.mmap(&mut cx, &args).unwrap();
    }
    let (faults, reclaims, stores) = (Arc::clone(&mm), Arc::clone(&machine), Arc::clone(&other));
    let seen = race(
        &machine,
        move |cx| {
            (0..2)
                .map(|n| faults.load(cx, BASE + n * PAGE))
                .collect::<Vec<_>>()
        },
        move |cx| {
            reclaims.reclaim_all(cx);
            (0..2).for_each(|n| stores.store(cx, BASE + n * PAGE, 9).unwrap());
        },
    );
    assert_eq!(seen, [Ok(7), Ok(7)], "a frame that is not the file's");
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    mm.exit(&mut cx);
    other.exit(&mut cx);
    drop(file);
    assert_eq!(machine.mem().in_use(), 0, "frames are left");
}

#[test]
fn look_up_against_reclaim() {
    explore(
        &[How::Sweep(2, 4), How::Random(200), How::Pct(200)],
        look_up_and_reclaim,
    );
}

#[test]
fn fault_against_punch() {
    explore(&[How::Sweep(2, 8), How::Random(100), How::Pct(100)], || {
        fault_and_cut(|cx, file| file.punch_hole(cx.reborrow(), PAGE, PAGE).unwrap())
    });
}

#[test]
fn fault_against_truncate() {
    explore(&[How::Sweep(2, 8), How::Random(100), How::Pct(100)], || {
        fault_and_cut(|cx, file| file.truncate(cx.reborrow(), PAGE).unwrap())
    });
}

#[test]
fn store_against_truncate() {
    explore(
        &[How::Sweep(2, 8), How::Random(100), How::Pct(100)],
        store_and_cut,
    );
}

#[test]
fn mmap_against_munmap() {
    explore(
        &[How::Sweep(2, 4), How::Random(100), How::Pct(100)],
        map_and_unmap,
    );
}

#[test]
fn fork_against_truncate() {
    explore(
        &[How::Sweep(2, 16), How::Random(100), How::Pct(100)],
        fork_and_truncate,
    );
}

#[test]
fn fault_against_munmap() {
    explore(
        &[How::Sweep(2, 4), How::Random(100), How::Pct(100)],
        fault_and_remap,
    );
}
