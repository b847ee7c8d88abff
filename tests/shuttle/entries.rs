//! A page that is on its way or in swap, and what another thread does to it meanwhile: forks,
//! changes of rights, moves, discards, and faults that come late. The table is in
//! `docs/entries.md`.

use crate::{
    run::{How, explore},
    world::{BASE, PAGE, one_page},
};
use emmu::{
    Machine, MachineConfig, MemConfig, Mm,
    addr::Vpn,
    ctx::CallCx,
    extmmu::kvm::{Gfn, MemSlot, SlotFlags, Vm, VmConfig},
    file::{File, FileMode, Shmem},
    mm::{Advice, ForkMode, MapFlags, MmapArgs, MremapArgs, MremapFlags, Prot, Pte},
};
use std::sync::Arc;

type Task = Box<dyn FnOnce(&mut CallCx<'_>) + Send>;

/// One page, that holds 1, on a machine with that many slots of swap.
fn world(slots: u32) -> (Arc<Machine>, Arc<Mm>) {
    one_page(MachineConfig {
        memory: MemConfig {
            frames: 16,
            swap: slots,
            ..MemConfig::default()
        },
        ..MachineConfig::default()
    })
}
/// Runs all of them at the same time, then the last one alone.
fn race(machine: &Arc<Machine>, tasks: Vec<Task>, then: impl FnOnce(&mut CallCx<'_>)) {
    let run = |task: Task| {
        let machine = Arc::clone(machine);
        shuttle::thread::spawn(move || task(&mut machine.enter().unwrap().cx()))
    };
    let running: Vec<_> = tasks.into_iter().map(run).collect();
    running.into_iter().for_each(|task| task.join().unwrap());
    let mut thread = machine.enter().unwrap();
    then(&mut thread.cx());
    let mem = machine.mem();
    assert_eq!(
        (mem.in_use(), mem.swap().used()),
        (0, 0),
        "frames or slots are left"
    );
}
fn task(mm: &Arc<Mm>, what: impl FnOnce(&Arc<Mm>, &mut CallCx<'_>) + Send + 'static) -> Task {
    let mm = Arc::clone(mm);
    Box::new(move |cx| what(&mm, cx))
}
fn moves(mm: &Arc<Mm>) -> Task {
    task(mm, |mm, cx| {
        let _moved_or_not = mm.migrate(cx, BASE).unwrap();
    })
}
/// Moves the mapping of one page.
fn remap(mm: &Mm, cx: &mut CallCx<'_>, from: u64, to: u64) {
    let args = MremapArgs {
        addr: from,
        old_len: PAGE,
        new_len: PAGE,
        flags: MremapFlags::MAYMOVE | MremapFlags::FIXED,
        new_addr: to,
    };
    mm.mremap(cx, args).unwrap();
}
fn advise(mm: &Mm, cx: &mut CallCx<'_>, advice: Advice) {
    mm.madvise(cx, BASE, PAGE, advice).unwrap();
}
fn entry(mm: &Mm, cx: &mut CallCx<'_>, at: u64) -> Pte {
    mm.walker(cx).pte(Vpn::containing(at))
}

/// Two moves, so that one may hold what the other cannot move then. What the child writes is the
/// child's.
fn forked(mode: ForkMode) {
    let (machine, mm) = world(0);
    let forks = task(&mm, move |mm, cx| {
        let child = mm.fork_with(cx, mode).unwrap();
        child.store(cx, BASE, 2).unwrap();
        assert_eq!(mm.load(cx, BASE), Ok(1), "the child wrote to its parent");
        mm.store(cx, BASE, 3).unwrap();
        assert_eq!(child.load(cx, BASE), Ok(2), "the parent wrote to its child");
        child.exit(cx);
    });
    race(&machine, vec![moves(&mm), moves(&mm), forks], |cx| {
        assert_eq!(mm.load(cx, BASE), Ok(3));
        mm.exit(cx);
    });
}
fn protected() {
    let (machine, mm) = world(0);
    let protects = task(&mm, |mm, cx| {
        mm.mprotect(cx, BASE, PAGE, Prot::READ).unwrap();
        let now = entry(mm, cx, BASE);
        let writable = matches!(now, Pte::Present { write: true, .. });
        assert!(!writable, "more than the mapping gives: {now:?}");
    });
    race(&machine, vec![moves(&mm), protects], |cx| {
        let now = entry(&mm, cx, BASE);
        assert!(matches!(now, Pte::Present { write: false, .. }), "{now:?}");
        mm.exit(cx);
    });
}
/// The mapping comes back to where it was cut off, so that a walk of the reverse map meets the
/// place where the page goes before the one where it is; and between the two those of children, so
/// that there is time for the whole move.
fn remapped() {
    const CHILDREN: usize = 3;
    let (machine, mm) = world(0);
    let (home, away) = (BASE + PAGE, BASE + 64 * PAGE);
    let children: Vec<_> = {
        let mut thread = machine.enter().unwrap();
        let mut cx = thread.cx();
        let two = MmapArgs::anonymous(2 * PAGE).fixed(BASE);
        mm.mmap(&mut cx, &two).unwrap();
        mm.store(&mut cx, BASE, 1).unwrap();
        mm.store(&mut cx, home, 1).unwrap();
        let children = (0..CHILDREN).map(|_| mm.fork(&mut cx).unwrap()).collect();
        remap(&mm, &mut cx, home, away);
        children
    };
    let remaps = task(&mm, move |mm, cx| remap(mm, cx, away, home));
    let moves = task(&mm, move |mm, cx| {
        let _moved_or_not = mm.migrate(cx, away).unwrap();
    });
    race(&machine, vec![moves, remaps], |cx| {
        for mm in children.iter().chain([&mm]) {
            let now = entry(mm, cx, home);
            assert!(
                matches!(now, Pte::Present { .. }),
                "lost on its way: {now:?}"
            );
            assert_eq!((mm.load(cx, home), mm.map_count(cx)), (Ok(1), 1));
            mm.exit(cx);
        }
    });
}
fn discarded() {
    let (machine, mm) = world(0);
    let discards = task(&mm, |mm, cx| {
        advise(mm, cx, Advice::DontNeed);
        assert_eq!(mm.load(cx, BASE), Ok(0), "it came back");
    });
    race(&machine, vec![moves(&mm), discards], |cx| {
        assert_eq!(mm.load(cx, BASE), Ok(0), "it came back");
        mm.exit(cx);
    });
}
/// A fault that saw a slot comes late: the slot is another page's by then, and the entry refers to
/// it as before.
fn reused_slot() {
    let (machine, mm) = world(1);
    advise(&mm, &mut machine.enter().unwrap().cx(), Advice::PageOut);
    let faults = task(&mm, |mm, cx| {
        let seen = mm.load(cx, BASE).unwrap();
        assert!(seen <= 2, "{seen}");
    });
    let reuses = task(&mm, |mm, cx| {
        advise(mm, cx, Advice::DontNeed);
        mm.store(cx, BASE, 2).unwrap();
        advise(mm, cx, Advice::PageOut);
    });
    race(&machine, vec![reuses, faults], |cx| {
        assert_eq!(
            mm.load(cx, BASE),
            Ok(2),
            "the page that had the slot before"
        );
        mm.exit(cx);
    });
}
/// A page in the swap cache is given up lazily, or found to be nobody else's, while reclaim makes
/// its entry refer to the slot that it is cached for.
fn given_up_in_reclaim(does: fn(&Mm, &mut CallCx<'_>), then: fn(u8) -> bool) {
    let (machine, mm) = world(2);
    {
        let mut thread = machine.enter().unwrap();
        let mut cx = thread.cx();
        advise(&mm, &mut cx, Advice::PageOut);
        // A child that was: the page is not known to be nobody else's.
        let child = mm.fork(&mut cx).unwrap();
        child.exit(&mut cx);
        assert_eq!(mm.load(&mut cx, BASE), Ok(1));
        machine.reclaim_all(&mut cx);
        assert_eq!(mm.load(&mut cx, BASE), Ok(1));
    }
    let other = BASE + 64 * PAGE;
    let reclaims = task(&mm, |mm, cx| {
        mm.machine().reclaim_all(cx);
    });
    let does = task(&mm, move |mm, cx| does(mm, cx));
    race(&machine, vec![does, reclaims], |cx| {
        mm.mmap(cx, &MmapArgs::anonymous(PAGE).fixed(other))
            .unwrap();
        mm.store(cx, other, 0x99).unwrap();
        mm.madvise(cx, other, PAGE, Advice::PageOut).unwrap();
        let seen = mm.load(cx, BASE).unwrap();
        assert!(then(seen), "somebody else's page: {seen:#x}");
        assert_eq!(mm.load(cx, other), Ok(0x99));
        mm.exit(cx);
    });
}
/// A device that looks up a private page of a file to write to it never gets the file's own.
fn looked_up_to_write() {
    let (machine, mm) = world(0);
    let shmem = Shmem::memfd(machine.host(), "m", PAGE).unwrap();
    let file = File::open(shmem, FileMode::ReadWrite);
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let mut args = MmapArgs::anonymous(PAGE).file(&file, 0).fixed(BASE);
    args.flags = MapFlags::PRIVATE | MapFlags::FIXED;
    mm.mmap(&mut cx, &args).unwrap();
    drop(args);
    assert_eq!(mm.load(&mut cx, BASE), Ok(0));
    let (vm, _stays) = Vm::create(&mut cx, &mm, VmConfig::default());
    vm.set_memory(
        &mut cx,
        MemSlot {
            id: 0,
            gfn: Gfn(0),
            pages: 1,
            hva: Vpn::containing(BASE),
            flags: SlotFlags::empty(),
        },
    )
    .unwrap();
    let vcpu = vm.vcpu(&mut cx);
    drop(thread);
    let writes = task(&mm, move |_, cx| {
        for _ in 0..2 {
            vcpu.write(cx, 0, &[0xee]).unwrap();
        }
    });
    let discards = task(&mm, |mm, cx| advise(mm, cx, Advice::DontNeed));
    let whole = Arc::clone(&file);
    race(&machine, vec![discards, writes], move |cx| {
        let mut byte = [0];
        whole.read_at(cx.reborrow(), 0, &mut byte).unwrap();
        assert_eq!(byte, [0], "the device wrote to the file");
        mm.exit(cx);
        drop((file, whole, vm));
    });
}

const SMALL: [How; 3] = [How::Sweep(2, 1), How::Random(100), How::Pct(100)];
const LARGE: [How; 2] = [How::Random(600), How::Pct(600)];

#[test]
fn fork_against_move() {
    explore(&LARGE, || forked(ForkMode::Copy));
}
#[test]
fn fork_that_shares_against_move() {
    explore(&LARGE, || forked(ForkMode::Share));
}
#[test]
fn mprotect_against_move() {
    explore(&SMALL, protected);
}
#[test]
fn mremap_against_move() {
    explore(&LARGE, remapped);
}
#[test]
fn discard_against_move() {
    explore(&SMALL, discarded);
}
#[test]
fn fault_against_reused_slot() {
    explore(&SMALL, reused_slot);
}
#[test]
fn lazy_free_against_reclaim() {
    explore(&SMALL, || {
        given_up_in_reclaim(|mm, cx| advise(mm, cx, Advice::Free), |seen| seen <= 1);
    });
}
#[test]
fn write_against_reclaim() {
    explore(&SMALL, || {
        given_up_in_reclaim(|mm, cx| mm.store(cx, BASE, 2).unwrap(), |seen| seen == 2);
    });
}
#[test]
fn device_write_against_discard() {
    explore(&SMALL, looked_up_to_write);
}
