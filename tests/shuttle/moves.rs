//! A mapping that changes its place, against each kind of walk of a reverse map. Walks find its
//! page by one record: at the old place, or at the new one, but never at neither.

use crate::{
    run::{How, explore},
    world::{BASE, PAGE},
};
use emmu::{
    FaultError, Machine, MachineConfig, MemConfig, Mm,
    addr::Vpn,
    ctx::CallCx,
    file::{DiskFile, File, FileMode, MemStore, Shmem},
    mm::{MmapArgs, MremapArgs, MremapFlags, Pte},
};
use std::sync::Arc;

const AWAY: u64 = BASE + 64 * PAGE;
const HOWS: [How; 3] = [How::Sweep(2, 2), How::Random(100), How::Pct(100)];

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

/// Maps a page and writes 1 to it.
fn map(mm: &Mm, cx: &mut CallCx<'_>, args: &MmapArgs, at: u64) {
    mm.mmap(cx, &args.clone().fixed(at)).unwrap();
    mm.store(cx, at, 1).unwrap();
}

/// Moves the mapping of one page from [`BASE`] to [`AWAY`] while a walk is under way.
fn race(machine: &Arc<Machine>, mm: &Arc<Mm>, walk: impl FnOnce(&mut CallCx<'_>) + Send + 'static) {
    let (walker, mover, moved) = (Arc::clone(machine), Arc::clone(machine), Arc::clone(mm));
    let walks = shuttle::thread::spawn(move || walk(&mut walker.enter().unwrap().cx()));
    let moves = shuttle::thread::spawn(move || {
        let args = MremapArgs {
            addr: BASE,
            old_len: PAGE,
            new_len: PAGE,
            flags: MremapFlags::MAYMOVE | MremapFlags::FIXED,
            new_addr: AWAY,
        };
        moved
            .mremap(&mut mover.enter().unwrap().cx(), args)
            .unwrap();
    });
    moves.join().unwrap();
    walks.join().unwrap();
}

/// Runs the race, and checks what must hold after each.
fn against(
    args: &MmapArgs,
    (machine, mm): (Arc<Machine>, Arc<Mm>),
    walk: impl FnOnce(&mut CallCx<'_>) + Send + 'static,
    then: impl FnOnce(&mut CallCx<'_>, &Mm),
) {
    map(&mm, &mut machine.enter().unwrap().cx(), args, BASE);
    race(&machine, &mm, walk);
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let gone = mm.load(&mut cx, BASE);
    assert_eq!(gone, Err(FaultError::NotMapped(BASE)), "it is where it was");
    then(&mut cx, &mm);
    assert_eq!(mm.unreachable_pages(&mut cx), [], "not found by the walks");
    mm.exit(&mut cx);
}

fn nothing_left(machine: &Machine) {
    let mem = machine.mem();
    let left = (mem.in_use(), mem.swap().used());
    assert_eq!(left, (0, 0), "frames or slots are left");
}

fn entry(mm: &Mm, cx: &mut CallCx<'_>) -> Pte {
    mm.walker(cx).pte(Vpn::containing(AWAY))
}

/// The page migrates: its mark must be found again.
fn migration() {
    let (machine, mm) = world();
    let (args, moving) = (MmapArgs::anonymous(PAGE), Arc::clone(&mm));
    let walk = move |cx: &mut CallCx<'_>| {
        for at in [BASE, AWAY] {
            let _moved_or_not = moving.migrate(cx, at);
        }
    };
    against(&args, (Arc::clone(&machine), mm), walk, |cx, mm| {
        let now = entry(mm, cx);
        let there = matches!(now, Pte::Present { .. });
        assert!(there, "lost on its way: {now:?}");
        assert_eq!(mm.load(cx, AWAY), Ok(1));
    });
    nothing_left(&machine);
}

/// Reclaim asks whether the page was used, and takes it: later, if not now.
fn reclaim() {
    let (machine, mm) = world();
    let (args, reclaims) = (MmapArgs::anonymous(PAGE), Arc::clone(&machine));
    let walk = move |cx: &mut CallCx<'_>| {
        reclaims.reclaim_all(cx);
    };
    let again = Arc::clone(&machine);
    against(&args, (Arc::clone(&machine), mm), walk, |cx, mm| {
        again.reclaim_all(cx);
        let now = entry(mm, cx);
        assert!(!matches!(now, Pte::Present { .. }), "not found: {now:?}");
        assert_eq!(mm.load(cx, AWAY), Ok(1));
    });
    nothing_left(&machine);
}

/// Two pages of the same contents become one, and two again.
fn merging() {
    const OTHER: u64 = BASE + 32 * PAGE;
    let (machine, mm) = world();
    let args = MmapArgs::anonymous(PAGE);
    map(&mm, &mut machine.enter().unwrap().cx(), &args, OTHER);
    let (merger, merged) = (Arc::clone(&machine), Arc::clone(&mm));
    let walk = move |cx: &mut CallCx<'_>| {
        merger.merge_same_pages(cx, &[(&*merged, BASE), (&*merged, OTHER)]);
    };
    against(&args, (Arc::clone(&machine), mm), walk, |cx, mm| {
        mm.store(cx, OTHER, 2).unwrap();
        assert_eq!((mm.load(cx, AWAY), mm.load(cx, OTHER)), (Ok(1), Ok(2)));
    });
    nothing_left(&machine);
}

/// The page is cut off its object: its mapping must be found.
fn truncation() {
    let (machine, mm) = world();
    let memory = Shmem::memfd(machine.host(), "m", PAGE).unwrap();
    let file = File::open(memory, FileMode::ReadWrite);
    let (args, cut) = (
        MmapArgs::anonymous(PAGE).file(&file, 0).shared(),
        Arc::clone(&file),
    );
    let walk = move |cx: &mut CallCx<'_>| cut.truncate(cx.reborrow(), 0).unwrap();
    against(&args, (Arc::clone(&machine), mm), walk, |cx, mm| {
        let there = mm.load(cx, AWAY);
        let beyond = matches!(there, Err(FaultError::Beyond(_)));
        assert!(beyond, "what was cut off is mapped: {there:?}");
    });
    drop((args, file));
    nothing_left(&machine);
}

/// The page is written to its store: its mapping must lose the right to write.
fn write_back() {
    let (machine, mm) = world();
    let store = Box::<MemStore>::default();
    let file = DiskFile::new(machine.host(), "/d", PAGE, store).unwrap();
    let file = File::open(file, FileMode::ReadWrite);
    let (args, sync) = (
        MmapArgs::anonymous(PAGE).file(&file, 0).shared(),
        Arc::clone(&file),
    );
    let walk = move |cx: &mut CallCx<'_>| sync.sync(cx.reborrow()).unwrap();
    against(&args, (Arc::clone(&machine), mm), walk, |cx, mm| {
        let now = entry(mm, cx);
        let clean = matches!(now, Pte::Present { write: false, .. });
        assert!(clean, "written to unnoticed: {now:?}");
        assert_eq!(mm.load(cx, AWAY), Ok(1));
    });
    drop((args, file));
    nothing_left(&machine);
}

#[test]
fn move_against_migration() {
    explore(&HOWS, migration);
}
#[test]
fn move_against_reclaim() {
    explore(&HOWS, reclaim);
}
#[test]
fn move_against_merging() {
    explore(&HOWS, merging);
}
#[test]
fn move_against_truncation() {
    explore(&HOWS, truncation);
}
#[test]
fn move_against_write_back() {
    explore(&HOWS, write_back);
}
