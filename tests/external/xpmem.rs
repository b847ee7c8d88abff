//! The XPmem model against the address space, watched by the oracle; each mistake is found and
//! named.

use emmu::{
    Machine, MachineConfig, Mm,
    addr::{Vpn, VpnRange},
    ctx::CallCx,
    extmmu::xpmem::{
        Attachment, Breach, Manners, Owner, OwnerConfig, Partition, PartitionFailure, PartitionId,
        SegId, XpmemError, XpmemMistake,
    },
    mm::{Advice, MmapArgs},
    notifier::{Access, ExternalMmu, Registration},
    oracle::{Finding, Invariant, Oracle},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

const BASE: u64 = 1 << 30;
const PAGE: u64 = emmu::PAGE_SIZE;
const PAGES: u64 = 64;
const LONG: Duration = Duration::from_secs(600);

struct World {
    mm: Arc<Mm>,
    owner: Arc<Owner>,
    oracle: Arc<Oracle>,
    segment: SegId,
    registration: Registration,
}

fn pages(from: u64, to: u64) -> VpnRange {
    let page = |n| Vpn::containing(BASE + n * PAGE);
    VpnRange::new(page(from), page(to)).unwrap()
}

/// A partition that answers has all the time for it that the machine takes.
fn patient() -> OwnerConfig {
    OwnerConfig {
        deadline: LONG,
        ..OwnerConfig::default()
    }
}

fn world(cx: &mut CallCx<'_>, machine: &Arc<Machine>, config: OwnerConfig) -> World {
    let mm = Mm::new(machine);
    let oracle = Oracle::new(machine);
    oracle.set_deadline(LONG);
    mm.mmap(cx, &MmapArgs::anonymous(PAGES * PAGE).fixed(BASE))
        .unwrap();
    let (owner, registration) = Owner::attach(cx, &mm, config);
    oracle.watch(&mm, Arc::clone(&owner) as Arc<dyn ExternalMmu>);
    let segment = owner.make(pages(0, PAGES), Access::Write);
    World {
        mm,
        owner,
        oracle,
        segment,
        registration,
    }
}

fn with(config: OwnerConfig, f: impl FnOnce(&mut CallCx<'_>, &World)) {
    let machine = Machine::new(MachineConfig::default());
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let w = world(&mut cx, &machine, config);
    f(&mut cx, &w);
    w.oracle.audit();
    w.mm.exit(&mut cx);
    w.oracle.audit_end(&w.mm);
    assert_eq!(w.owner.exported(&mut cx), 0);
    assert_eq!(w.owner.recalls(), 0);
    w.oracle.audit_empty(&mut cx, 0);
    w.oracle.assert_silent();
    drop(w.registration);
}

impl World {
    fn import(&self, partition: &Arc<Partition>) -> Attachment {
        self.owner
            .import(partition, self.segment, 0, PAGES)
            .unwrap()
    }
}

fn wait_until(done: impl Fn() -> bool) {
    let limit = Instant::now() + LONG;
    while !done() {
        assert!(Instant::now() < limit, "it does not come");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn load(cx: &mut CallCx<'_>, importer: &Attachment, page: u64) -> u8 {
    let mut byte = [0];
    importer.read(cx, page * PAGE, &mut byte).unwrap();
    byte[0]
}

#[test]
fn importers_see_the_owners_memory() {
    with(patient(), |cx, w| {
        let (a, b) = (
            Partition::new(PartitionId(1)),
            Partition::without_thread(PartitionId(2)),
        );
        let (ia, ib) = (w.import(&a), w.import(&b));
        w.mm.store(cx, BASE, 1).unwrap();
        assert_eq!((load(cx, &ia, 0), load(cx, &ib, 0)), (1, 1));
        ia.write(cx, PAGE - 1, &[2, 3]).unwrap();
        assert_eq!(w.mm.load(cx, BASE + PAGE).unwrap(), 3);
        let child = w.mm.fork(cx).unwrap();
        assert_eq!((a.entries(), b.entries()), (0, 0), "recalled by the fork");
        ib.write(cx, PAGE, &[4]).unwrap();
        assert_eq!(load(cx, &ia, 1), 4);
        assert_eq!(child.load(cx, BASE + PAGE).unwrap(), 3);
        child.exit(cx);
        assert!(w.owner.bill().acknowledgements >= 2);
    });
}

#[test]
fn every_partition_answers_before_a_page_goes() {
    with(patient(), |cx, w| {
        let slow = Duration::from_millis(30);
        let all: Vec<_> = (0..3).map(|n| Partition::new(PartitionId(n))).collect();
        let importers: Vec<_> = all.iter().map(|p| w.import(p)).collect();
        for (partition, importer) in all.iter().zip(&importers) {
            partition.set_manners(Manners::Slow(slow));
            importer.write(cx, 0, &[7]).unwrap();
        }
        all[1].set_manners(Manners::Twice);
        w.mm.madvise(cx, BASE, PAGE, Advice::DontNeed).unwrap();
        assert!(all.iter().all(|p| p.entries() == 0));
        assert!(w.owner.bill().longest >= slow);
        wait_until(|| all[1].answers() == 2);
        // An answer too many ends who gave it.
        wait_until(|| all[1].is_cut_off());
        let refused = importers[1].write(cx, 0, &[8]);
        assert_eq!(refused, Err(XpmemError::CutOff(PartitionId(1))));
        assert_eq!(load(cx, &importers[0], 0), 0);
        let failures = w.owner.failures();
        let twice = |f: &PartitionFailure| {
            matches!(
                f,
                PartitionFailure::Broke {
                    breach: Breach::NotOwed(_),
                    ..
                }
            )
        };
        assert!(failures.len() == 1 && twice(&failures[0]), "{failures:?}");
    });
}

type NewPartition = fn(PartitionId) -> Arc<Partition>;

/// The case with a partition that has a thread, and with one that has none.
fn both_kinds<T: Copy>(case: T) -> [(T, NewPartition); 2] {
    [Partition::new, Partition::without_thread].map(|new| (case, new as _))
}

/// An answer that is not owed ends a partition without a thread as well.
#[test]
fn a_partition_that_answers_twice_is_cut_off() {
    for ((), new) in both_kinds(()) {
        with(patient(), |cx, w| {
            let partition = new(PartitionId(1));
            let importer = w.import(&partition);
            importer.write(cx, 0, &[7]).unwrap();
            partition.set_manners(Manners::Twice);
            w.mm.madvise(cx, BASE, PAGE, Advice::DontNeed).unwrap();
            wait_until(|| partition.is_cut_off());
            assert_eq!((partition.entries(), partition.answers()), (0, 2));
        });
    }
}

#[test]
fn death_is_an_answer_and_a_hang_ends_by_the_deadline() {
    let within = |deadline| OwnerConfig {
        deadline,
        ..patient()
    };
    // One dies, and has all the time to do so; the other never answers.
    let short = Duration::from_millis(50);
    let ends = [(Manners::Dies, LONG), (Manners::Hangs, short)];
    for ((manners, deadline), new) in ends.into_iter().flat_map(both_kinds) {
        with(within(deadline), |cx, w| {
            let partition = new(PartitionId(2));
            let importer = w.import(&partition);
            importer.write(cx, 0, &[1]).unwrap();
            partition.set_manners(manners);
            w.mm.munmap(cx, BASE, PAGE).unwrap();
            let hung = PartitionFailure::Hung {
                partition: PartitionId(2),
                range: pages(0, 1),
                after: deadline,
            };
            let expected = (manners == Manners::Hangs).then_some(hung);
            assert_eq!(w.owner.failures(), Vec::from_iter(expected));
            let refused = importer.read(cx, PAGE, &mut [0]).unwrap_err();
            assert_eq!(refused, XpmemError::CutOff(PartitionId(2)));
            assert!(w.owner.import(&partition, w.segment, 0, 1).is_err());
        });
    }
}

#[test]
fn segments_end_with_their_owner_and_attachments_of_attachments_with_theirs() {
    with(patient(), |cx, w| {
        let (a, b) = (
            Partition::new(PartitionId(1)),
            Partition::new(PartitionId(2)),
        );
        let ia = w.import(&a);
        let again = ia.make(4, 8, Access::Read).unwrap();
        let ib = w.owner.import(&b, again, 1, 7).unwrap();
        w.mm.store(cx, BASE + 5 * PAGE, 9).unwrap();
        assert_eq!(load(cx, &ib, 0), 9);
        assert_eq!(ib.write(cx, 0, &[1]), Err(XpmemError::ReadOnly(again)));
        assert_eq!(
            ib.make(0, 1, Access::Write),
            Err(XpmemError::ReadOnly(again))
        );
        assert_eq!(
            ia.make(60, 5, Access::Read),
            Err(XpmemError::Range(60 * PAGE))
        );
        assert_eq!(
            ib.read(cx, 7 * PAGE, &mut [0]),
            Err(XpmemError::Range(7 * PAGE))
        );
        ia.detach(cx);
        assert_eq!(ib.read(cx, 0, &mut [0]), Err(XpmemError::NoSegment(again)));
        let ia = w.import(&a);
        w.owner.remove(cx, w.segment).unwrap();
        assert_eq!(
            ia.read(cx, 0, &mut [0]),
            Err(XpmemError::NoSegment(w.segment))
        );
        assert_eq!(w.owner.exported(cx), 0);
    });
    let machine = Machine::new(MachineConfig::default());
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let w = world(&mut cx, &machine, patient());
    let importer = w.import(&Partition::new(PartitionId(1)));
    importer.write(&mut cx, 0, &[1]).unwrap();
    w.mm.exit(&mut cx);
    assert_eq!(
        importer.read(&mut cx, 0, &mut [0]),
        Err(XpmemError::NoSegment(w.segment))
    );
}

#[test]
fn the_oracle_names_each_mistake() {
    use Invariant::{Coherent, NoUseAfterFree, ReferencesKept};
    let lies = [
        None,
        Some(XpmemMistake::NoRecall),
        Some(XpmemMistake::LateRecall),
        Some(XpmemMistake::ShortRecall),
        Some(XpmemMistake::NoWait),
    ];
    for mistake in lies {
        let machine = Machine::new(MachineConfig::default());
        let mut thread = machine.enter().unwrap();
        let mut cx = thread.cx();
        let config = OwnerConfig {
            mistake,
            ..patient()
        };
        let w = world(&mut cx, &machine, config);
        let partition = Partition::new(PartitionId(1));
        let importer = w.import(&partition);
        for n in 0..2 {
            importer.write(&mut cx, n * PAGE, &[1]).unwrap();
        }
        if mistake.is_none() {
            partition.set_manners(Manners::Lies);
        }
        if mistake == Some(XpmemMistake::NoWait) {
            // Its answer does not come before the pages go.
            partition.set_manners(Manners::Hangs);
        }
        w.mm.madvise(&mut cx, BASE, 2 * PAGE, Advice::DontNeed)
            .unwrap();
        let mut found: Vec<_> = w.oracle.take().iter().map(|f| f.invariant()).collect();
        found.sort_unstable();
        found.dedup();
        // The owner pins: references go while the partition has the page.
        assert_eq!(
            found,
            [NoUseAfterFree, Coherent, ReferencesKept],
            "{mistake:?}"
        );
        w.mm.exit(&mut cx);
    }
}

#[test]
fn references_that_go_before_the_answers_are_named() {
    let machine = Machine::new(MachineConfig::default());
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let config = OwnerConfig {
        mistake: Some(XpmemMistake::EarlyUnpin),
        ..patient()
    };
    let w = world(&mut cx, &machine, config);
    let importer = w.import(&Partition::new(PartitionId(1)));
    importer.write(&mut cx, 0, &[1]).unwrap();
    w.mm.madvise(&mut cx, BASE, PAGE, Advice::DontNeed).unwrap();
    let found = w.oracle.take();
    assert!(
        matches!(found[..], [Finding::GivenUpWhileTranslated { mmu: "XPmem", range, .. }]
            if range == pages(0, 1)),
        "{found:?}"
    );
    w.mm.exit(&mut cx);
}

#[test]
fn what_an_importer_stored_without_a_word_is_a_lost_write() {
    let machine = Machine::new(MachineConfig::default());
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let config = OwnerConfig {
        mistake: Some(XpmemMistake::LostDirty),
        ..patient()
    };
    let w = world(&mut cx, &machine, config);
    let importer = w.import(&Partition::new(PartitionId(1)));
    importer.write(&mut cx, 0, &[1]).unwrap();
    w.mm.madvise(&mut cx, BASE, PAGE, Advice::DontNeed).unwrap();
    let found = w.oracle.take();
    assert!(
        matches!(found[..], [Finding::LostWrite { range: Some(_), .. }]),
        "{found:?}"
    );
    w.mm.exit(&mut cx);
}

/// A window that waits that long for an answer which never comes; what whoever looks meanwhile
/// finds first, if he comes in time.
fn looked_at_meanwhile(deadline: Duration) -> Vec<Finding> {
    let machine = Machine::new(MachineConfig::default());
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let config = OwnerConfig {
        deadline,
        ..patient()
    };
    let w = world(&mut cx, &machine, config);
    w.oracle.set_deadline(Duration::from_millis(30));
    let partition = Partition::new(PartitionId(1));
    let importer = w.import(&partition);
    importer.write(&mut cx, 0, &[1]).unwrap();
    partition.set_manners(Manners::Hangs);
    let over = AtomicBool::new(false);
    let found = std::thread::scope(|s| {
        let looks = s.spawn(|| {
            let mut found = Vec::new();
            while found.is_empty() && !over.load(SeqCst) {
                std::thread::sleep(Duration::from_millis(5));
                w.oracle.audit_liveness();
                found = w.oracle.take();
            }
            found
        });
        w.mm.madvise(&mut cx, BASE, PAGE, Advice::DontNeed).unwrap();
        over.store(true, SeqCst);
        looks.join().unwrap()
    });
    w.mm.exit(&mut cx);
    found
}

#[test]
fn a_window_that_waits_too_long_for_an_answer_is_named_with_who_owes_it() {
    let named = |found: &[Finding]| {
        matches!(found, [Finding::LongWindow { window, waiting: Some("XPmem"), .. }]
            if *window == pages(0, 1))
    };
    // On a machine that has no time, it has to wait longer to be seen.
    let tries = [1, 10, 100].map(Duration::from_secs);
    assert!(tries.iter().any(|time| named(&looked_at_meanwhile(*time))));
}

/// One that nobody looked at meanwhile is named when it is over.
#[test]
fn a_window_that_has_waited_too_long_is_named_with_who_took_longest() {
    let machine = Machine::new(MachineConfig::default());
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let w = world(&mut cx, &machine, patient());
    let slow = Partition::new(PartitionId(2));
    let importer = w.import(&slow);
    importer.write(&mut cx, 0, &[1]).unwrap();
    slow.set_manners(Manners::Slow(Duration::from_millis(100)));
    w.oracle.set_deadline(Duration::from_millis(30));
    w.mm.madvise(&mut cx, BASE, PAGE, Advice::DontNeed).unwrap();
    w.oracle.set_deadline(LONG);
    let found = w.oracle.take();
    let [
        Finding::LongWindow {
            waiting: None,
            slowest: Some(("XPmem", _)),
            ..
        },
    ] = found[..]
    else {
        panic!("{found:?}");
    };
    w.mm.exit(&mut cx);
    w.oracle.assert_silent();
}
