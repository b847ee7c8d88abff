//! Each allocation of a scenario is made to fail in turn: the error is typed, the counts stay
//! exact, and the same call succeeds afterwards.

use crate::common::{PAGE, RW, World, at, machine};
use emmu::{
    Errno, FaultError, Mm,
    mm::{Advice, MapFlags, MmapArgs, MremapArgs, MremapFlags, Prot},
    testkit::Failed,
};
use std::sync::Arc;

/// What a step came to: done, out of memory, or something else (which fails the test).
type Outcome = Result<(), Errno>;

fn fault(result: Result<(), FaultError>) -> Outcome {
    match result {
        Ok(()) => Ok(()),
        Err(FaultError::NoMemory(_)) => Err(Errno::ENOMEM),
        Err(other) => panic!("{other}"),
    }
}

/// Fails each allocation of `work` in turn, on worlds made by `prepare`.
fn fail_each(
    prepare: impl Fn(&mut World),
    work: impl Fn(&mut World) -> Outcome,
    check: impl Fn(&mut World),
) -> u64 {
    let world = || {
        let mut w = World::on(machine(4096));
        prepare(&mut w);
        w
    };
    let machine = |w: &World| Arc::clone(&w.machine);
    emmu::testkit::fail_each(world, machine, work, |mut w, came| {
        if let Failed::Reported(errno) = came {
            assert!(matches!(errno, Errno::ENOMEM | Errno::EAGAIN), "{errno}");
        }
        check(&mut w);
        w.end();
    })
}

fn contents(w: &mut World, from: u64, n: u64) {
    for p in from..from + n {
        assert_eq!(w.get(p), Ok(1), "page {p}");
    }
}

#[test]
fn first_touches() {
    let failed = fail_each(
        |w| w.map(0, 600, RW),
        |w| {
            for n in [0, 1, 511, 512, 599] {
                fault(w.mm.store(&mut w.thread.cx(), at(n), 1))?;
            }
            Ok(())
        },
        |w| assert_eq!(w.get(599), Ok(1)),
    );
    // Three levels and two leaves, one anon_vma, five frames.
    assert_eq!(failed, 3 + 1 + 1 + 5);
}

#[test]
fn mapping_and_populating() {
    let failed = fail_each(
        |w| w.map(0, 4, Prot::READ),
        |w| {
            let args = MmapArgs::anonymous(8 * PAGE)
                .fixed(at(2))
                .flags(MapFlags::POPULATE);
            let got = w.mm.mmap(&mut w.thread.cx(), &args);
            got.map(|_| ()).map_err(|e| e.errno())?;
            (2..10).try_for_each(|n| fault(w.mm.store(&mut w.thread.cx(), at(n), 1)))
        },
        |w| contents(w, 2, 8),
    );
    assert!(failed > 10, "{failed}");
}

#[test]
fn shared_memory() {
    let failed = fail_each(
        |_| (),
        |w| {
            let args = MmapArgs::anonymous(8 * PAGE).fixed(at(0)).shared();
            let got = w.mm.mmap(&mut w.thread.cx(), &args);
            got.map(|_| ()).map_err(|e| e.errno())?;
            (0..8).try_for_each(|n| fault(w.mm.store(&mut w.thread.cx(), at(n), 1)))
        },
        |w| contents(w, 0, 8),
    );
    assert!(failed > 10, "{failed}");
}

/// A space with all that fork must copy.
fn mixed(w: &mut World) {
    w.map(0, 16, RW);
    w.fill(0, 16);
    w.map(600, 4, RW);
    w.fill(600, 4);
    w.share(700, 4);
    w.fill(700, 4);
    w.map(800, 4, Prot::READ);
    let cx = &mut w.thread.cx();
    w.mm.madvise(cx, at(4), PAGE, Advice::GuardInstall).unwrap();
    w.mm.madvise(cx, at(8), 2 * PAGE, Advice::WipeOnFork)
        .unwrap();
}

#[test]
fn forks() {
    let failed = fail_each(
        mixed,
        |w| {
            let cx = &mut w.thread.cx();
            let child = w.mm.fork(cx).map_err(|e| e.errno())?;
            assert_eq!(child.load(cx, at(0)), Ok(1));
            assert_eq!(child.load(cx, at(8)), Ok(0));
            child.exit(cx);
            Ok(())
        },
        |w| {
            contents(w, 0, 4);
            contents(w, 600, 4);
            contents(w, 700, 4);
            assert_eq!(w.get(4), Err(FaultError::Guarded(at(4))));
        },
    );
    assert!(failed > 12, "{failed}");
}

#[test]
fn copies_on_write() {
    let family = |w: &mut World| -> Arc<Mm> {
        w.map(0, 8, RW);
        w.fill(0, 8);
        w.mm.fork(&mut w.thread.cx()).unwrap()
    };
    let failed = fail_each(
        |w| {
            // The child is not kept: only what it did to the entries is.
            let child = family(w);
            child.store(&mut w.thread.cx(), at(0), 2).unwrap();
            drop(child);
            let child = w.mm.fork(&mut w.thread.cx()).unwrap();
            std::mem::forget(Arc::clone(&child));
            child.exit(&mut w.thread.cx());
            w.get(9).unwrap_err();
        },
        |w| (0..8).try_for_each(|n| fault(w.mm.store(&mut w.thread.cx(), at(n), 1))),
        |w| contents(w, 0, 8),
    );
    // All pages are the parent's own again.
    assert_eq!(failed, 0);

    for nth in 1.. {
        let mut w = World::new();
        let child = family(&mut w);
        let machine = Arc::clone(&w.machine);
        machine.mem().inject().arm(nth);
        let outcome: Outcome =
            (0..8).try_for_each(|n| fault(w.mm.store(&mut w.thread.cx(), at(n), 9)));
        machine.mem().inject().disarm();
        if outcome.is_err() {
            (0..8).for_each(|n| w.put(n, 9));
        }
        for n in 0..8 {
            assert_eq!(child.load(&mut w.thread.cx(), at(n)), Ok(1));
            assert_eq!(w.get(n), Ok(9));
        }
        child.exit(&mut w.thread.cx());
        w.end();
        if outcome.is_ok() {
            assert_eq!(nth, 9, "one frame a page");
            return;
        }
    }
}

#[test]
fn moves_across_tables() {
    let to = |w: &mut World, from: u64, to: u64| {
        let args = MremapArgs {
            addr: at(from),
            old_len: 1100 * PAGE,
            new_len: 1100 * PAGE,
            flags: MremapFlags::MAYMOVE | MremapFlags::FIXED,
            new_addr: at(to),
        };
        let got = w.mm.mremap(&mut w.thread.cx(), args);
        got.map(|_| ()).map_err(|e| e.errno())
    };
    // Whole tables, tables and entries, and entries alone.
    for target in [1 << 20, (1 << 20) + 512, (1 << 20) + 7] {
        let failed = fail_each(
            |w| {
                w.map(0, 1200, RW);
                w.fill(0, 1);
                w.fill(400, 300);
                w.fill(1099, 1);
            },
            |w| to(w, 0, target),
            |w| {
                contents(w, target + 400, 300);
                contents(w, target + 1099, 1);
                // If the split of the source failed, it stays mapped, empty, as on Linux.
                assert!(!matches!(w.get(400), Ok(1..)));
                assert_eq!(w.get(1150), Ok(0));
            },
        );
        assert!(failed >= 3, "{failed}");
    }
}

#[test]
fn splits_and_guards() {
    let failed = fail_each(
        |w| {
            w.map(0, 16, RW);
            w.fill(0, 16);
        },
        |w| {
            let cx = &mut w.thread.cx();
            w.mm.mprotect(cx, at(4), 4 * PAGE, Prot::READ)
                .map_err(|e| e.errno())?;
            w.mm.madvise(cx, at(10), 2 * PAGE, Advice::DontFork)
                .map_err(|e| e.errno())?;
            w.mm.madvise(cx, at(600), PAGE, Advice::GuardInstall)
                .unwrap_err();
            w.mm.munmap(cx, at(13), PAGE).map_err(|e| e.errno())
        },
        |w| {
            contents(w, 0, 13);
            assert!(w.get(13).is_err());
        },
    );
    // Two for the protection, two for the advice, one for the hole and what a first attempt left
    // behind.
    assert!(failed >= 5, "{failed}");
}

#[test]
fn guards_in_new_tables() {
    let failed = fail_each(
        |w| w.map(0, 1100, RW),
        |w| {
            let got = w.mm.madvise(
                &mut w.thread.cx(),
                at(510),
                600 * PAGE - 510 * PAGE,
                Advice::GuardInstall,
            );
            got.map_err(|e| e.errno())
        },
        |w| assert_eq!(w.get(599), Err(FaultError::Guarded(at(599)))),
    );
    assert_eq!(failed, 1 + 3 + 1);
}

#[test]
fn a_growing_stack_and_heap() {
    let failed = fail_each(
        |w| {
            w.map_with(1000, 4, RW, MapFlags::GROWSDOWN);
            w.mm.set_start_brk(&mut w.thread.cx(), at(0)).unwrap();
        },
        |w| {
            let cx = &mut w.thread.cx();
            // A stack that cannot grow is SIGSEGV, whatever the reason.
            if w.mm.store(cx, at(990), 1).is_err() {
                return Err(Errno::ENOMEM);
            }
            if w.mm.brk(cx, at(8)) == at(8) {
                Ok(())
            } else {
                Err(Errno::ENOMEM)
            }
        },
        |w| {
            contents(w, 990, 1);
            w.put(7, 1);
        },
    );
    assert!(failed >= 6, "{failed}");
}

#[test]
fn memory_that_is_used_up_comes_back() {
    let mut w = World::on(machine(8));
    // Refused otherwise: more than there is cannot be promised.
    w.map_with(0, 16, RW, MapFlags::NORESERVE);
    let full = (0..16).find_map(|n| w.mm.store(&mut w.thread.cx(), at(n), 1).err());
    assert!(matches!(full, Some(FaultError::NoMemory(_))));
    assert_eq!(w.machine.mem().in_use(), 8);
    contents(&mut w, 0, 8);
    w.mm.madvise(&mut w.thread.cx(), at(0), 4 * PAGE, Advice::DontNeed)
        .unwrap();
    w.fill(8, 4);
    w.end();
}
