//! The reasons that keep neighbours apart, each by itself; and the number of VMAs that an operation
//! is said to take, held against the operation.

use crate::common::{
    PAGE, RW, World, at,
    calls::{NONE, READ, Sys, ToErrno as _, private, small_map},
    objects::shmem,
};
use emmu::{
    error::Errno::ENOMEM,
    mm::{
        Advice, MapFlags, MergeBarrier, MlockFlags, MmapArgs, MremapFlags, Prot, VmFlags,
        VmaChange, VmaCost,
    },
};
use proptest::prelude::*;

const PAGES: u64 = 16;

fn barriers(w: &mut World, n: u64) -> Vec<MergeBarrier> {
    let page = World::pages(n, n + 1).start();
    let found = w.mm.merge_barriers(&mut w.thread.cx(), page);
    found.expect("two VMAs meet there, or lie on both sides of a gap")
}

#[test]
fn flags_and_gaps_and_names_are_barriers() {
    let mut w = World::new();
    w.map(0, 4, RW);
    w.protect(2, 2, READ).unwrap();
    assert_eq!(
        barriers(&mut w, 2),
        [MergeBarrier::Flags(VmFlags::WRITE | VmFlags::ACCOUNT)]
    );
    w.munmap(1, 1).unwrap();
    let gap = MergeBarrier::Gap(World::pages(1, 2));
    assert!(barriers(&mut w, 2).contains(&gap));
    w.mm.name_memory(&mut w.thread.cx(), at(3), PAGE, Some("heap"))
        .unwrap();
    assert_eq!(barriers(&mut w, 3), [MergeBarrier::Name]);
    let page = World::pages(1, 2).start();
    let none = w.mm.merge_barriers(&mut w.thread.cx(), page);
    assert_eq!(none, None, "no VMA starts in a gap");
    w.end();
}

#[test]
fn objects_and_offsets_are_barriers() {
    let mut w = World::new();
    let (one, other) = (shmem(&mut w, 8), shmem(&mut w, 8));
    w.map_file(0, 2, &one, 0, MapFlags::SHARED);
    w.map_file(2, 2, &one, 2, MapFlags::SHARED);
    assert_eq!(w.count(), 1);
    w.map_file(2, 2, &one, 0, MapFlags::SHARED);
    let (expected, found) = (2, 0);
    assert_eq!(
        barriers(&mut w, 2),
        [MergeBarrier::Offset { expected, found }]
    );
    w.map_file(2, 2, &other, 2, MapFlags::SHARED);
    assert_eq!(barriers(&mut w, 2), [MergeBarrier::Object]);
    drop((one, other));
    w.end();
}

#[test]
fn written_pages_of_two_families_and_of_a_parent_are_barriers() {
    let mut w = World::new();
    w.map(0, 1, RW);
    w.map(1, 1, READ);
    w.map(2, 1, RW);
    w.fill(0, 1);
    w.fill(2, 1);
    // Each was written when the memory between kept them apart.
    w.munmap(1, 1).unwrap();
    w.map(1, 1, RW);
    let found = barriers(&mut w, 2);
    assert_eq!(found, [MergeBarrier::Families]);
    let child = w.fork();
    w.inside(&child, |w| {
        w.map(3, 1, RW);
        assert_eq!(barriers(w, 3), [MergeBarrier::Inherited]);
    });
    w.reap(&child);
    w.end();
}

#[test]
fn memory_moved_after_it_was_written_has_another_offset() {
    let mut w = World::new();
    w.map(0, 1, RW);
    w.map(8, 1, RW);
    w.fill(8, 1);
    let to = w.remap(8, 1, 1, MremapFlags::MAYMOVE | MremapFlags::FIXED, 1);
    assert_eq!(to, 1);
    let found = barriers(&mut w, 1);
    assert!(
        matches!(found[..], [MergeBarrier::Offset { .. }]),
        "{found:?}"
    );
    w.end();
}

/// An operation drawn at random.
#[derive(Clone, Copy, Debug)]
enum Step {
    Change(u64, u64, VmaChange),
    Map(u64, u64, Prot, bool),
    Fill(u64),
    Fork,
}

fn range() -> impl Strategy<Value = (u64, u64)> {
    (0..PAGES, 1..6_u64).prop_map(|(from, n)| (from, n.min(PAGES - from)))
}
fn prot() -> impl Strategy<Value = Prot> {
    prop_oneof![Just(RW), Just(READ), Just(NONE)]
}
fn change() -> impl Strategy<Value = VmaChange> {
    let advice = prop_oneof![
        Just(Advice::DontFork),
        Just(Advice::DoFork),
        Just(Advice::WipeOnFork),
        Just(Advice::Mergeable),
        Just(Advice::DontNeed),
    ];
    prop_oneof![
        Just(VmaChange::Unmap),
        prot().prop_map(VmaChange::Protect),
        advice.prop_map(VmaChange::Advise),
        Just(VmaChange::Lock(MlockFlags::empty())),
        Just(VmaChange::Lock(MlockFlags::ONFAULT)),
        Just(VmaChange::Unlock),
    ]
}
fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (range(), change()).prop_map(|((from, n), change)| Step::Change(from, n, change)),
        3 => (range(), prot(), any::<bool>())
            .prop_map(|((from, n), prot, shared)| Step::Map(from, n, prot, shared)),
        2 => (0..PAGES).prop_map(Step::Fill),
        1 => Just(Step::Fork),
    ]
}

fn cost(w: &mut World, step: Step) -> Option<VmaCost> {
    let mm = w.mm.clone();
    let cx = &mut w.thread.cx();
    match step {
        Step::Change(from, n, change) => {
            Some(mm.vma_cost(cx, World::pages(from, from + n), change))
        }
        Step::Map(..) => Some(mm.mmap_cost(cx, &args(step)).expect("they are good")),
        _ => None,
    }
}
fn args(step: Step) -> MmapArgs {
    let Step::Map(from, n, prot, shared) = step else {
        unreachable!("asked for maps only")
    };
    let args = private(from, n).prot(prot);
    if shared { args.shared() } else { args }
}
/// Returns true for an operation that may fail with ENOMEM for another reason than the number of
/// VMAs: a hole, memory without rights that is to be locked.
fn fails_otherwise(w: &mut World, step: Step) -> bool {
    match step {
        Step::Change(_, _, VmaChange::Unmap) | Step::Map(..) => false,
        Step::Change(_, _, VmaChange::Lock(_)) => true,
        Step::Change(from, n, _) => {
            let spans = w.spans();
            let inside = |page| {
                spans
                    .iter()
                    .any(|&(start, end)| start <= page && page < end)
            };
            !(from..from + n).all(inside)
        }
        _ => true,
    }
}
fn run(w: &mut World, step: Step) -> Sys<()> {
    match step {
        Step::Change(from, n, VmaChange::Unmap) => w.munmap(from, n),
        Step::Change(from, n, VmaChange::Protect(prot)) => w.protect(from, n, prot),
        Step::Change(from, n, VmaChange::Advise(advice)) => w.advise(from, n, advice),
        Step::Change(from, n, VmaChange::Lock(flags)) => {
            let mm = w.mm.clone();
            let done = mm.mlock2(&mut w.thread.cx(), at(from), n * PAGE, flags);
            done.sys()
        }
        Step::Change(from, n, _) => w.unlock(from, n),
        Step::Map(..) => w.mmap(&args(step)).map(drop),
        Step::Fill(n) => {
            let mm = w.mm.clone();
            let _no_right = mm.store(&mut w.thread.cx(), at(n), 1);
            Ok(())
        }
        Step::Fork => {
            let child = w.fork();
            w.reap(&child);
            Ok(())
        }
    }
}

proptest! {
    #![proptest_config(crate::drawn::config(256))]
    #[test]
    fn costs_are_what_the_operations_take(steps in proptest::collection::vec(step(), 1..40)) {
        const LIMIT: usize = 7;
        let mut w = small_map(LIMIT);
        for step in steps {
            let before = w.count();
            let said = cost(&mut w, step);
            let fails_otherwise = fails_otherwise(&mut w, step);
            let done = run(&mut w, step);
            let Some(said) = said else { continue };
            prop_assert_eq!(said.before, before, "{:?}", step);
            if done.is_ok() {
                prop_assert_eq!(said.after, w.count(), "{:?}", step);
                prop_assert!(said.least_limit <= LIMIT, "{:?} {:?}", step, said);
            } else if done == Err(ENOMEM) && !fails_otherwise {
                prop_assert!(said.least_limit > LIMIT, "{:?} {:?}", step, said);
            }
        }
        w.end();
    }
}
