//! The GRU model against the address space, watched by the oracle; each mistake is found and named.

use emmu::{
    Machine, MachineConfig, Mm,
    ctx::CallCx,
    extmmu::gru::{Gru, GruConfig, GruContext, GruFault, GruMistake, GruSpace, run_on},
    mm::{Advice, MmapArgs},
    notifier::{ExternalMmu, Registration},
    oracle::{Finding, Invariant, Oracle},
};
use std::sync::Arc;

const BASE: u64 = 1 << 30;
const PAGE: u64 = emmu::PAGE_SIZE;
const PAGES: u64 = 2048;

struct World {
    mm: Arc<Mm>,
    grus: Vec<Arc<Gru>>,
    space: Arc<GruSpace>,
    oracle: Arc<Oracle>,
    registration: Registration,
}

fn world(
    cx: &mut CallCx<'_>,
    machine: &Arc<Machine>,
    config: GruConfig,
    bug: Option<GruMistake>,
) -> World {
    let mm = Mm::new(machine);
    let oracle = Oracle::new(machine);
    // How long a window takes is the machine's matter.
    oracle.set_deadline(std::time::Duration::MAX);
    mm.mmap(cx, &MmapArgs::anonymous(PAGES * PAGE).fixed(BASE))
        .unwrap();
    let grus = Gru::several(2, config);
    let (space, registration) = GruSpace::attach(cx, &mm, &grus, bug);
    oracle.watch(&mm, Arc::clone(&space) as Arc<dyn ExternalMmu>);
    World {
        mm,
        grus,
        space,
        oracle,
        registration,
    }
}

fn with(config: GruConfig, f: impl FnOnce(&mut CallCx<'_>, &World)) {
    let machine = Machine::new(MachineConfig::default());
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let w = world(&mut cx, &machine, config, None);
    f(&mut cx, &w);
    w.oracle.audit();
    w.mm.exit(&mut cx);
    w.oracle.audit_end(&w.mm);
    w.oracle.audit_empty(&mut cx, 0);
    w.oracle.assert_silent();
    assert_eq!(w.space.active(), 0);
    drop(w.registration);
}

fn load(cx: &mut CallCx<'_>, context: &GruContext, page: u64) -> u8 {
    let mut byte = [0];
    context.read(cx, BASE + page * PAGE, &mut byte).unwrap();
    byte[0]
}

#[test]
fn instructions_see_what_the_processor_sees() {
    with(GruConfig::default(), |cx, w| {
        let context = GruContext::new(&w.space, 0).unwrap();
        w.mm.store(cx, BASE, 3).unwrap();
        assert_eq!(load(cx, &context, 0), 3);
        context.write(cx, BASE + PAGE - 1, &[8, 9]).unwrap();
        assert_eq!(w.mm.load(cx, BASE + PAGE).unwrap(), 9);
        let child = w.mm.fork(cx).unwrap();
        context.write(cx, BASE + PAGE, &[7]).unwrap();
        assert_eq!(child.load(cx, BASE + PAGE).unwrap(), 9);
        w.mm.store(cx, BASE, 4).unwrap();
        assert_eq!(load(cx, &context, 0), 4);
        w.mm.madvise(cx, BASE, PAGES * PAGE, Advice::DontNeed)
            .unwrap();
        assert_eq!(load(cx, &context, 0), 0);
        child.exit(cx);
        let stats = w.grus[0].stats();
        assert!(
            stats.interrupt_dropins > 0 && stats.user_dropins > 0,
            "{stats:?}"
        );
        assert!(
            stats.whole_purges > 0 && stats.purge_cycles > 0,
            "{stats:?}"
        );
    });
}

#[test]
fn a_fault_of_the_address_space_is_an_exception() {
    with(GruConfig::default(), |cx, w| {
        let context = GruContext::new(&w.space, 0).unwrap();
        w.mm.munmap(cx, BASE, PAGE).unwrap();
        let fault = context.read(cx, BASE, &mut [0]).unwrap_err();
        assert!(matches!(fault, GruFault::Fault { addr: BASE, .. }));
    });
    let machine = Machine::new(MachineConfig::default());
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let w = world(&mut cx, &machine, GruConfig::default(), None);
    let context = GruContext::new(&w.space, 1).unwrap();
    w.mm.exit(&mut cx);
    assert_eq!(context.read(&mut cx, BASE, &mut [0]), Err(GruFault::Gone));
}

#[test]
fn a_context_that_is_not_loaded_is_purged_lazily() {
    with(GruConfig::default(), |cx, w| {
        let context = GruContext::new(&w.space, 0).unwrap();
        context.write(cx, BASE, &[5]).unwrap();
        context.unload();
        let purges = w.grus[0].stats().purges;
        w.mm.madvise(cx, BASE, PAGE, Advice::DontNeed).unwrap();
        assert_eq!(w.grus[0].stats().purges, purges);
        assert_eq!(w.grus[0].stats().lazy_purges, 1);
        assert_eq!(
            w.grus[0].tlb_len(),
            1,
            "the entry is there, but nobody can use it"
        );
        assert_eq!(load(cx, &context, 0), 0);
        // Without a window in between, what the TLB has is found again.
        let dropins =
            |w: &World| w.grus[0].stats().interrupt_dropins + w.grus[0].stats().user_dropins;
        let before = dropins(w);
        context.unload();
        assert_eq!(load(cx, &context, 0), 0);
        assert_eq!(dropins(w), before);
    });
}

#[test]
fn more_contexts_than_slots_and_identifiers_take_turns() {
    let config = GruConfig {
        max_asid: 136,
        ..GruConfig::default()
    };
    with(config, |cx, w| {
        // The other has the same GRUs in another order: its second is the first one's first.
        let swapped: Vec<_> = w.grus.iter().rev().cloned().collect();
        let (other, registration) = GruSpace::attach(cx, &w.mm, &swapped, None);
        let mine = (0..20).map(|_| GruContext::new(&w.space, 0).unwrap());
        let all: Vec<GruContext> = mine
            .chain((0..20).map(|_| GruContext::new(&other, 1).unwrap()))
            .collect();
        for round in 0..12 {
            for (n, context) in (0u8..).zip(&all) {
                let page = u64::from(n);
                context.write(cx, BASE + page * PAGE, &[n + round]).unwrap();
                assert_eq!(load(cx, context, page), n + round);
            }
            all.iter().for_each(GruContext::unload);
            w.mm.madvise(cx, BASE, PAGE, Advice::DontNeed).unwrap();
        }
        assert!(w.grus[0].stats().flushes > 0);
        drop(all);
        w.mm.unregister(cx, registration);
    });
}

#[test]
fn pages_behind_a_miss_are_entered_ahead() {
    let config = GruConfig {
        preload: 4,
        ..GruConfig::default()
    };
    with(config, |cx, w| {
        for n in 0..8 {
            w.mm.store(cx, BASE + n * PAGE, n as u8).unwrap();
        }
        let context = GruContext::new(&w.space, 0).unwrap();
        for n in 0..8 {
            assert_eq!(u64::from(load(cx, &context, n)), n);
        }
        let stats = w.grus[0].stats();
        assert_eq!(stats.interrupt_dropins, 2);
        assert!(stats.preloads >= 6);
    });
}

#[test]
fn a_huge_page_is_one_entry() {
    with(GruConfig::default(), |cx, w| {
        w.mm.madvise(cx, BASE, PAGES * PAGE, Advice::HugePage)
            .unwrap();
        w.mm.store(cx, BASE, 1).unwrap();
        let context = GruContext::new(&w.space, 0).unwrap();
        assert_eq!(load(cx, &context, 0), 1);
        assert_eq!(load(cx, &context, 511), 0);
        assert_eq!(w.grus[0].tlb_len(), 1);
        w.mm.munmap(cx, BASE + PAGE, PAGE).unwrap();
        assert_eq!(w.grus[0].tlb_len(), 0);
        assert_eq!(load(cx, &context, 0), 1);
    });
}

#[test]
fn the_oracle_names_each_mistake() {
    use Invariant::{Coherent, NoUseAfterFree};
    for bug in [
        GruMistake::NoPurge,
        GruMistake::LatePurge,
        GruMistake::NoLazyPurge,
        GruMistake::ShortPurge,
    ] {
        let machine = Machine::new(MachineConfig::default());
        let mut thread = machine.enter().unwrap();
        let mut cx = thread.cx();
        let w = world(&mut cx, &machine, GruConfig::default(), Some(bug));
        let context = GruContext::new(&w.space, 0).unwrap();
        context.write(&mut cx, BASE, &[1]).unwrap();
        if bug == GruMistake::NoLazyPurge {
            context.unload();
        }
        w.mm.madvise(&mut cx, BASE, PAGE, Advice::DontNeed).unwrap();
        let mut found: Vec<_> = w.oracle.take().iter().map(|f| f.invariant()).collect();
        found.sort_unstable();
        found.dedup();
        assert_eq!(found, [NoUseAfterFree, Coherent], "{bug:?}");
        w.mm.exit(&mut cx);
    }
}

#[test]
fn what_an_instruction_stored_without_a_word_is_a_lost_write() {
    let machine = Machine::new(MachineConfig::default());
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let bug = Some(GruMistake::LostDirty);
    let w = world(&mut cx, &machine, GruConfig::default(), bug);
    let context = GruContext::new(&w.space, 0).unwrap();
    context.write(&mut cx, BASE, &[1]).unwrap();
    w.mm.madvise(&mut cx, BASE, PAGE, Advice::DontNeed).unwrap();
    let found = w.oracle.take();
    assert!(
        matches!(found[..], [Finding::LostWrite { range: Some(_), .. }]),
        "{found:?}"
    );
    w.mm.exit(&mut cx);
}

#[test]
fn a_window_that_is_never_counted_out_is_named() {
    let machine = Machine::new(MachineConfig::default());
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let bug = Some(GruMistake::LostEnd);
    let w = world(&mut cx, &machine, GruConfig::default(), bug);
    w.mm.madvise(&mut cx, BASE, PAGE, Advice::DontNeed).unwrap();
    w.oracle.audit_liveness();
    assert!(w.oracle.take().is_empty(), "not before the deadline");
    w.oracle.set_deadline(std::time::Duration::ZERO);
    w.oracle.audit_liveness();
    let found = w.oracle.take();
    let counts = |f: &Finding| {
        matches!(
            f,
            Finding::CountsWindows {
                mmu: "GRU",
                count: 1,
                ..
            }
        )
    };
    assert!(found.iter().any(counts), "{found:?}");
    w.mm.exit(&mut cx);
    let found = w.oracle.take();
    let counts = |f: &Finding| matches!(f, Finding::CountsAtExit { mmu: "GRU", .. });
    assert!(found.iter().any(counts), "{found:?}");
}

#[test]
fn purges_go_through_a_handle_of_the_blade_or_through_a_shared_one() {
    with(GruConfig::default(), |cx, w| {
        let context = GruContext::new(&w.space, 0).unwrap();
        let purge_from = |cx: &mut CallCx<'_>, processor| {
            run_on(processor);
            load(cx, &context, 0);
            let before = w.grus[0].stats();
            w.mm.madvise(cx, BASE, PAGE, Advice::DontNeed).unwrap();
            let after = w.grus[0].stats();
            assert!(after.purges > before.purges);
            let local = after.local_purges - before.local_purges;
            (after.purges - before.purges, local)
        };
        let (all, local) = purge_from(cx, 3);
        assert_eq!(all, local, "both GRUs are on the first blade");
        let (_, local) = purge_from(cx, 16);
        assert_eq!(local, 0, "another blade");
        assert_eq!(w.grus[0].stats().handle_waits, 0);
        assert_eq!(w.space.bill().waits, 0);
    });
}
