//! Segments of System V, policies, protection keys, huge pages switched off, fetches.

use crate::common::{PAGE, RW, World, at, objects::swapping};
use emmu::{
    Errno, FaultError, HugeSize, MemConfig, PAGE_SIZE,
    error::{MbindError, MprotectError, ShmError},
    mm::{Advice, MbindFlags, PolicyMode, Prot, ShmFlags, ShmGetFlags, ShmId, ThpDisable},
};

const CREAT: ShmGetFlags = ShmGetFlags::CREAT;

fn layout(w: &mut World) -> Vec<(u64, u64)> {
    let lines = w.mm.maps(&mut w.thread.cx());
    let page = |addr: u64| (addr - at(0)) / PAGE;
    lines.iter().map(|l| (page(l.start), page(l.end))).collect()
}
fn attach(w: &mut World, id: ShmId, page: u64, flags: ShmFlags) -> Result<u64, Errno> {
    let done = w.mm.shmat(&mut w.thread.cx(), id, at(page), flags);
    done.map_err(|e| e.errno())
}
fn detach(w: &mut World, page: u64) -> Result<(), ShmError> {
    w.mm.shmdt(&mut w.thread.cx(), at(page))
}

#[test]
fn a_key_names_one_segment_until_it_is_removed() {
    let w = World::new();
    let get = |key, size, flags| w.machine.shmget(key, size, flags);
    assert_eq!(get(7, 1, ShmGetFlags::empty()), Err(ShmError::NoKey(7)));
    let id = get(7, 5000, CREAT).unwrap();
    assert_eq!(get(7, 5000, ShmGetFlags::empty()), Ok(id));
    assert_eq!(get(7, 1, CREAT), Ok(id));
    assert_eq!(get(7, 5001, CREAT), Err(ShmError::Size(5001)));
    assert_eq!(
        get(7, 1, CREAT | ShmGetFlags::EXCL),
        Err(ShmError::Exists(7))
    );
    assert_ne!(get(0, 1, CREAT).unwrap(), get(0, 1, CREAT).unwrap());
    for size in [0, u64::MAX] {
        assert_eq!(get(8, size, CREAT), Err(ShmError::Size(size)));
    }
    w.machine.shm_remove(id).unwrap();
    assert_eq!(w.machine.shm_remove(id), Err(ShmError::NoSegment(id.0)));
    assert_ne!(get(7, 1, CREAT), Ok(id));
}

#[test]
fn a_removed_segment_lives_as_long_as_its_mappings() {
    let mut w = World::new();
    let free = w.machine.mem().in_use();
    let id = w.machine.shmget(0, 2 * PAGE, CREAT).unwrap();
    attach(&mut w, id, 0, ShmFlags::empty()).unwrap();
    w.put(0, 5);
    w.machine.shm_remove(id).unwrap();
    attach(&mut w, id, 8, ShmFlags::RDONLY).unwrap();
    assert_eq!(w.get(8), Ok(5));
    let stat = w.machine.shm_stat(id).unwrap();
    assert_eq!((stat.attached, stat.removed), (2, true));
    assert_eq!((detach(&mut w, 0), detach(&mut w, 8)), (Ok(()), Ok(())));
    assert_eq!(attach(&mut w, id, 0, ShmFlags::empty()), Err(Errno::EINVAL));
    assert_eq!(w.machine.mem().in_use(), free, "its page is free");
}

#[test]
fn an_attachment_is_found_by_its_pieces() {
    let mut w = World::new();
    let id = w.machine.shmget(0, 6 * PAGE, CREAT).unwrap();
    attach(&mut w, id, 0, ShmFlags::empty()).unwrap();
    attach(&mut w, id, 6, ShmFlags::empty()).unwrap();
    let cx = &mut w.thread.cx();
    w.mm.munmap(cx, at(2), PAGE).unwrap();
    // A piece whose neighbour has its rights again stays a piece of its own.
    w.mm.mprotect(cx, at(3), PAGE, Prot::READ).unwrap();
    w.mm.mprotect(cx, at(3), PAGE, RW).unwrap();
    assert_eq!(layout(&mut w), [(0, 2), (3, 4), (4, 6), (6, 12)]);
    assert_eq!(detach(&mut w, 1), Err(ShmError::NotAttached(at(1))));
    assert_eq!(detach(&mut w, 0), Ok(()));
    assert_eq!(layout(&mut w), [(6, 12)]);
    assert_eq!(w.told(), "W2..3 W0..2 W3..4 W4..6");
}

#[test]
fn an_attachment_replaces_only_if_it_says_so() {
    let mut w = World::new();
    let id = w.machine.shmget(0, 2 * PAGE, CREAT).unwrap();
    w.map(0, 4, RW);
    assert_eq!(attach(&mut w, id, 1, ShmFlags::empty()), Err(Errno::EINVAL));
    assert_eq!(attach(&mut w, id, 1, ShmFlags::REMAP), Ok(at(1)));
    let cx = &mut w.thread.cx();
    let nowhere = w.mm.shmat(cx, id, 0, ShmFlags::REMAP);
    assert_eq!(nowhere, Err(ShmError::Address(0)));
    let odd = at(8) + 5;
    assert_eq!(
        w.mm.shmat(cx, id, odd, ShmFlags::empty()),
        Err(ShmError::Address(odd))
    );
    assert_eq!(w.mm.shmat(cx, id, odd, ShmFlags::RND), Ok(at(8)));
    assert!(w.mm.shmat(cx, id, 0, ShmFlags::EXEC).is_ok());
}

#[test]
fn memory_of_different_policies_does_not_merge() {
    let mut w = World::new();
    w.map(0, 8, RW);
    let bind = |w: &mut World, from: u64, n: u64, mode| {
        let (range, nodes) = ((at(from), n * PAGE), u64::from(mode != PolicyMode::Default));
        w.mm.mbind(
            &mut w.thread.cx(),
            range,
            (mode, nodes),
            MbindFlags::empty(),
        )
    };
    assert_eq!(bind(&mut w, 2, 2, PolicyMode::Bind), Ok(()));
    w.map(8, 2, RW);
    assert_eq!(layout(&mut w), [(0, 2), (2, 4), (4, 10)]);
    assert_eq!(bind(&mut w, 4, 6, PolicyMode::Bind), Ok(()));
    w.map(10, 2, RW);
    assert_eq!(layout(&mut w), [(0, 2), (2, 10), (10, 12)]);
    assert_eq!(
        bind(&mut w, 0, 13, PolicyMode::Interleave),
        Err(MbindError::Hole(at(12)))
    );
    assert_eq!(bind(&mut w, 0, 13, PolicyMode::Default), Ok(()));
    assert_eq!(layout(&mut w), [(0, 12)]);
    assert_eq!(
        bind(&mut w, 20, 1, PolicyMode::Default),
        Err(MbindError::Hole(at(20)))
    );
    assert_eq!(w.told(), "");
    let odd = w.mm.mbind(
        &mut w.thread.cx(),
        (at(0), PAGE),
        (PolicyMode::Bind, 2),
        MbindFlags::MOVE,
    );
    assert_eq!(odd.map_err(|e| e.errno()), Err(Errno::EINVAL));
}

#[test]
fn a_processor_without_keys_refuses_every_key() {
    let mut w = World::new();
    w.map(0, 2, RW);
    let cx = &mut w.thread.cx();
    assert!(w.mm.pkey_alloc().is_err());
    assert_eq!(
        w.mm.pkey_mprotect(cx, (at(0), PAGE), Prot::READ, -1),
        Ok(())
    );
    for key in [0, 1, 16, -2] {
        let refused = w.mm.pkey_mprotect(cx, (at(1), PAGE), Prot::READ, key);
        assert_eq!(refused, Err(MprotectError::Key(key)));
    }
    assert_eq!(
        w.mm.pkey_mprotect(cx, (at(1), 0), RW, 5),
        Ok(()),
        "nothing to do"
    );
    assert_eq!(layout(&mut w), [(0, 1), (1, 2)]);
}

#[test]
fn huge_pages_that_are_switched_off_stay_away_from_children_too() {
    const BLOCK: u64 = 512;
    let mut w = World::on(crate::common::machine(8192));
    w.map(0, 4 * BLOCK, RW);
    let cx = &mut w.thread.cx();
    w.mm.madvise(cx, at(0), 4 * BLOCK * PAGE_SIZE, Advice::HugePage)
        .unwrap();
    let mem = std::sync::Arc::clone(w.machine.mem());
    let before = mem.in_use();
    w.mm.set_thp_disable(cx, ThpDisable::Completely);
    w.mm.store(cx, at(0), 1).unwrap();
    assert_eq!(mem.in_use() - before, 1);
    let child = w.mm.fork(cx).unwrap();
    assert_eq!(child.thp_disable(cx), ThpDisable::Completely);
    child.exit(cx);
    w.mm.set_thp_disable(cx, ThpDisable::ExceptAdvised);
    w.mm.store(cx, at(BLOCK), 1).unwrap();
    assert_eq!(mem.in_use() - before, 1 + 512);
}

#[test]
fn what_may_not_be_executed_is_faulted_in_before_it_is_refused() {
    let mut w = World::new();
    w.map(0, 1, Prot::READ);
    w.map(1, 1, Prot::READ | Prot::EXEC);
    let cx = &mut w.thread.cx();
    assert_eq!(w.mm.fetch(cx, at(0)), Err(FaultError::Denied(at(0))));
    assert_eq!(w.mm.fetch(cx, at(1)), Ok(0));
    assert_eq!(w.mm.fetch(cx, at(2)), Err(FaultError::NotMapped(at(2))));
    let present = w.mm.mincore(cx, at(0), 2 * PAGE);
    assert_eq!(present, Ok(vec![true, true]));
}

/// `shmctl_do_lock`: all segments count together, and a segment gives its pages back when it goes.
#[test]
fn locked_segments_count_together() {
    let mut w = World::new();
    let [a, b] = [4, 3].map(|n| w.machine.shmget(0, n * PAGE, CREAT).unwrap());
    w.limit(|limits| (limits.ipc_lock, limits.memlock) = (false, 6 * PAGE));
    let mm = w.mm.clone();
    let lock = |w: &mut World, id| mm.shm_lock(&mut w.thread.cx(), id);
    assert_eq!(lock(&mut w, a), Ok(()));
    assert_eq!(lock(&mut w, a), Ok(()), "it is locked");
    assert_eq!(lock(&mut w, b), Err(ShmError::Locked(3)));
    assert_eq!(ShmError::Locked(3).errno(), Errno::ENOMEM);
    w.machine.shm_unlock(a).unwrap();
    assert_eq!(lock(&mut w, b), Ok(()));
    assert_eq!(lock(&mut w, a), Err(ShmError::Locked(4)));
    w.machine.shm_remove(b).unwrap();
    assert_eq!(lock(&mut w, a), Ok(()));
    w.limit(|limits| (limits.ipc_lock, limits.memlock) = (false, 0));
    assert_eq!(lock(&mut w, a), Err(ShmError::Denied));
    assert_eq!(ShmError::Denied.errno(), Errno::EPERM);
    assert_eq!(lock(&mut w, b), Err(ShmError::NoSegment(b.0)));
    w.machine.shm_unlock(a).unwrap();
}

/// The pages of a locked segment stay in memory; the same pages go when it is unlocked.
#[test]
fn reclaim_leaves_locked_segments() {
    let mut w = swapping(64, 64);
    let id = w.machine.shmget(0, 4 * PAGE, CREAT).unwrap();
    attach(&mut w, id, 0, ShmFlags::empty()).unwrap();
    w.fill(0, 2);
    let mm = w.mm.clone();
    mm.shm_lock(&mut w.thread.cx(), id).unwrap();
    w.put(2, 9);
    for (locked, stay) in [(true, 3), (false, 0)] {
        if !locked {
            w.machine.shm_unlock(id).unwrap();
        }
        let machine = w.machine.clone();
        for _ in 0..3 {
            machine.reclaim_all(&mut w.thread.cx());
        }
        assert_eq!(machine.mem().in_use(), stay, "locked: {locked}");
    }
    assert_eq!(w.get(2), Ok(9));
}

/// Huge pages of a segment are promised when it is made, and no attachment promises more.
#[test]
fn a_segment_of_huge_pages_has_its_promise() {
    let mut w = World::with_pool(
        MemConfig {
            frames: 4096,
            ..MemConfig::default()
        },
        4,
    );
    let huge = CREAT | ShmGetFlags::HUGETLB;
    let get = |size, flags| w.machine.shmget(0, size, flags);
    let bytes = 512 * PAGE;
    assert_eq!(get(5 * bytes, huge), Err(ShmError::NoHugePages(5 * bytes)));
    let odd = huge | ShmGetFlags::from_bits_retain(22 << 26);
    assert_eq!(get(bytes, odd), Err(ShmError::Flags(odd.bits())));
    let id = get(2 * bytes + 1, huge | ShmGetFlags::HUGE_2MB).unwrap();
    let late = get(2 * bytes, huge | ShmGetFlags::NORESERVE).unwrap();
    let reserved = |w: &World| w.machine.mem().huge_pool(HugeSize::Mib2).reserved;
    assert_eq!(w.machine.shm_stat(id).unwrap().size, 2 * bytes + 1);
    assert_eq!(reserved(&w), 3);
    attach(&mut w, id, 0, ShmFlags::empty()).unwrap();
    attach(&mut w, late, 2048, ShmFlags::empty()).unwrap();
    assert_eq!(reserved(&w), 3);
    w.put(0, 1);
    w.put(2048, 1);
    assert_eq!((reserved(&w), w.get(512)), (2, Ok(0)));
    let none = w.mm.store(&mut w.thread.cx(), at(2048 + 512), 1);
    assert!(matches!(none, Err(FaultError::Object { .. })), "{none:?}");
    w.machine.shm_remove(id).unwrap();
    detach(&mut w, 0).unwrap();
    assert_eq!(reserved(&w), 0);
}
