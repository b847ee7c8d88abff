//! Single rules of Linux that recordings taught, each by its name. Where a test has windows, they
//! are those of a recording.

use crate::common::{
    PAGE, RW, World, at,
    calls::{KEEP, MAYMOVE, NONE, READ, STAY, Sys, private, remap},
    objects::{shmem, swapping},
};
use emmu::{
    TASK_SIZE,
    error::Errno::{EEXIST, EINVAL, ENOMEM, EOPNOTSUPP},
    mm::{Advice, MapFlags, Merger, MlockallFlags, Mm, MmapArgs, PageState},
};

const GIB: u64 = 1 << 30;
const LOW: MapFlags = MapFlags::MAP_32BIT;
const TLB: MapFlags = MapFlags::HUGETLB;
const HUGE: u64 = 512;

fn low(w: &mut World, hint: u64, n: u64) -> Sys<u64> {
    let args = MmapArgs::anonymous(n * PAGE).flags(LOW | MapFlags::NORESERVE);
    w.mmap(&MmapArgs { addr: hint, ..args })
}
fn typed(kind: MapFlags, from: u64, n: u64) -> MmapArgs {
    let mut args = private(from, n);
    args.flags = (args.flags - MapFlags::PRIVATE) | kind;
    args
}
fn droppable(from: u64, n: u64) -> MmapArgs {
    typed(MapFlags::DROPPABLE, from, n)
}

/// `find_start_end`.
#[test]
fn map_32bit_is_the_second_gib_from_its_lowest_hole_on() {
    let mut w = World::new();
    assert_eq!(low(&mut w, 0, 3), Ok(GIB));
    assert_eq!(low(&mut w, 0, 1), Ok(GIB + 3 * PAGE));
    w.mm.munmap(&mut w.thread.cx(), GIB, PAGE).unwrap();
    assert_eq!(
        low(&mut w, 0, 2),
        Ok(GIB + 4 * PAGE),
        "the hole is too small"
    );
    assert_eq!(low(&mut w, 0, 1), Ok(GIB));
    // A hint counts as far as the end of the area; below its start too.
    assert_eq!(low(&mut w, 2 * GIB - PAGE, 1), Ok(2 * GIB - PAGE));
    assert_eq!(low(&mut w, 0x2000_0000, 1), Ok(0x2000_0000));
    assert_eq!(low(&mut w, 2 * GIB - PAGE, 2), Ok(GIB + 6 * PAGE));
    assert_eq!(low(&mut w, at(0), 1), Ok(GIB + 8 * PAGE));
    let all = GIB / PAGE - 10;
    assert_eq!(low(&mut w, 0, all + 1), Err(ENOMEM), "nowhere else");
    assert_eq!(low(&mut w, 0, all), Ok(GIB + 9 * PAGE));
    assert_eq!(low(&mut w, 0, 1), Err(ENOMEM));
    let fixed = w.mmap(&private(0, 1).flags(LOW));
    assert_eq!(fixed, Ok(at(0)), "it says nothing of what is fixed");
    w.end();
}

/// `thp_get_unmapped_area`: also there, whole multiples of 2 MiB lie at 2-MiB boundaries.
#[test]
fn map_32bit_of_whole_huge_pages_is_aligned() {
    let mut w = World::new();
    assert_eq!(low(&mut w, 0, 1), Ok(GIB));
    assert_eq!(low(&mut w, 0, HUGE), Ok(GIB + HUGE * PAGE));
    w.end();
}

/// `round_hint_to_min` is `mmap`'s own.
#[test]
fn only_mmap_raises_hints_to_mmap_min_addr() {
    let mut w = World::new();
    let hint = |addr| MmapArgs {
        addr,
        ..MmapArgs::anonymous(PAGE)
    };
    assert_eq!(w.mmap(&hint(0x1000)), Ok(0x10000));
    w.map(0, 2, RW);
    let mut args = remap(0, 1, 1, KEEP, 0);
    args.new_addr = 0x1000;
    assert_eq!(w.mremap(args), Ok(0x1000));
    let again = w.mremap(remap(1, 1, 1, KEEP, 0));
    assert!(again.is_ok_and(|at| at > 0x10000), "0 is no hint");
    w.end();
}

/// `hugetlbfs_file_mmap`, then `unmap_region`: two windows, the first over what was there.
#[test]
fn without_a_pool_map_hugetlb_fails_after_the_old_mapping_is_gone() {
    let mut w = World::new();
    for kind in [
        MapFlags::PRIVATE,
        MapFlags::SHARED,
        MapFlags::SHARED_VALIDATE,
    ] {
        w.map(0, HUGE, RW);
        w.put(0, 1);
        w.told();
        let failed = w.mmap(&typed(kind, 0, 1).flags(TLB));
        assert_eq!(failed, Err(ENOMEM), "{kind:?}");
        assert_eq!(w.told(), "W0..512 W0..512", "all of a huge page");
        assert_eq!((w.vmas().len(), w.promised()), (0, 0));
    }
    assert_eq!(w.mmap(&private(0, 1).flags(TLB)), Err(ENOMEM));
    assert_eq!(w.told(), "W0..512", "nothing was there");
    let size = MapFlags::HUGE_1GB | TLB;
    assert_eq!(w.mmap(&private(0, HUGE).flags(size)), Err(ENOMEM));
    assert_eq!(w.told(), "W0..262144");
    w.map(0, HUGE, RW);
    let mut odd = private(0, 1).flags(TLB);
    odd.offset = PAGE;
    assert_eq!(
        w.mmap(&odd),
        Err(EINVAL),
        "a file of huge pages has no such page"
    );
    assert_eq!((w.told().as_str(), w.vmas().len()), ("W0..512 W0..512", 0));
    w.end();
}

/// What is found before anything is unmapped.
#[test]
fn map_hugetlb_checks_its_arguments_first() {
    let mut w = World::new();
    w.map(0, HUGE, RW);
    w.told();
    let unaligned = private(1, HUGE).flags(TLB);
    let unknown = private(0, HUGE).flags(TLB | MapFlags::from_bits_retain(22 << 26));
    let file = shmem(&mut w, 4);
    let of_small_pages = private(0, 1).flags(TLB).file(&file, 0);
    let mut nothing = private(0, 1).flags(TLB);
    nothing.len = 0;
    let mut wraps = private(0, 1).flags(TLB);
    wraps.len = u64::MAX - PAGE;
    let contradiction = private(0, HUGE).flags(TLB | MapFlags::GROWSDOWN);
    let dropped = droppable(0, HUGE).flags(TLB);
    for args in [
        unaligned,
        unknown,
        of_small_pages,
        nothing,
        wraps,
        contradiction,
        dropped,
    ] {
        assert_eq!(w.mmap(&args), Err(EINVAL), "{args:?}");
    }
    let mut once = private(0, 1).flags(TLB | MapFlags::FIXED_NOREPLACE);
    once.flags -= MapFlags::FIXED;
    assert_eq!(w.mmap(&once), Err(EEXIST));
    let validated = typed(MapFlags::SHARED_VALIDATE, 0, HUGE);
    let unknown = validated.flags(TLB | MapFlags::from_bits_retain(1 << 22));
    assert_eq!(w.mmap(&unknown), Err(EOPNOTSUPP));
    assert_eq!((w.told().as_str(), w.vmas().len()), ("", 1));
    drop(file);
    w.end();
}

/// `hugetlb_get_unmapped_area`: a hint is rounded up.
#[test]
fn without_a_pool_a_place_is_found_all_the_same() {
    let mut w = World::new();
    w.map(0, 1, RW);
    let mut args = private(1, 1).flags(TLB);
    args.flags -= MapFlags::FIXED;
    assert_eq!(w.mmap(&args), Err(ENOMEM));
    assert_eq!(w.told(), "W512..1024");
    args.addr = 0;
    let place = w.mm.would_map_at(&mut w.thread.cx(), &args).unwrap();
    assert!(place.is_multiple_of(HUGE * PAGE) && place < TASK_SIZE);
    args = args.flags(LOW);
    assert_eq!(low(&mut w, 0, 1), Ok(GIB));
    let place = w.mm.would_map_at(&mut w.thread.cx(), &args);
    assert_eq!(place, Ok(GIB + HUGE * PAGE));
    w.end();
}

/// `folio_add_new_anon_rmap`: such pages are born not swap-backed, so they go where others would be
/// swapped out.
#[test]
fn droppable_pages_are_dropped_not_swapped_out() {
    let mut w = swapping(64, 64);
    w.map(0, 2, RW);
    w.mmap(&droppable(10, 2)).unwrap();
    for page in [0, 10] {
        w.put(page, 7);
        w.told();
        w.advise(page, 1, Advice::PageOut).unwrap();
    }
    assert_eq!(w.told(), "W10..11");
    let states = w.mm.pagemap(&mut w.thread.cx(), World::pages(0, 12));
    assert!(matches!(states[..], [(_, PageState::Swap)]), "{states:?}");
    assert_eq!((w.get(0), w.get(10)), (Ok(7), Ok(0)));
    // So under pressure; and what is locked by its process stays, but this never is.
    w.put(10, 8);
    w.machine.reclaim_all(&mut w.thread.cx());
    w.machine.reclaim_all(&mut w.thread.cx());
    assert_eq!(w.get(10), Ok(0));
    w.end();
}

/// `vma_supports_mlock`: the flag alone is refused. What all new memory is locked by passes over
/// it, but for being populated, and it merges with nothing.
#[test]
fn droppable_memory_is_mapped_unlocked_where_all_new_memory_is_locked() {
    let mut w = World::new();
    let locked = droppable(0, 2).flags(MapFlags::LOCKED);
    assert_eq!(w.mmap(&locked), Err(EINVAL));
    w.mmap(&droppable(2, 2)).unwrap();
    for flags in [
        MlockallFlags::FUTURE,
        MlockallFlags::FUTURE | MlockallFlags::ONFAULT,
    ] {
        w.mm.mlockall(&mut w.thread.cx(), flags).unwrap();
        assert_eq!(w.mmap(&droppable(0, 2)), Ok(at(0)));
        assert_eq!((w.locked(), w.spans()), (0, vec![(0, 2), (2, 4)]));
        let there = w.mm.pagemap(&mut w.thread.cx(), World::pages(0, 4));
        assert_eq!(there.len(), 2);
    }
    w.mm.munlockall(&mut w.thread.cx());
    w.mmap(&droppable(4, 2)).unwrap();
    assert_eq!(w.spans(), [(0, 2), (2, 6)]);
    w.end();
}

/// `dontunmap_complete`: "we don't need to touch locked_vm".
#[test]
fn locked_memory_that_is_moved_and_left_counts_twice() {
    let mut w = World::new();
    w.map(0, 8, RW);
    w.lock(0, 8).unwrap();
    w.remap(0, 8, 8, KEEP, 100);
    assert_eq!(w.locked(), 16, "neither half is let off");
    drop(w);
    let mut w = World::new();
    w.map(0, 8, RW);
    w.lock(0, 8).unwrap();
    let moved = w.remap(4, 4, 4, KEEP, 100);
    assert_eq!(w.locked(), 12);
    w.munmap(0, 8).unwrap();
    w.munmap(moved, 4).unwrap();
    assert_eq!(w.locked(), 8, "for good");
    w.limit(|limits| {
        limits.ipc_lock = false;
        limits.memlock = 12 * PAGE;
    });
    w.map(0, 8, RW);
    assert_eq!((w.lock(0, 5), w.lock(0, 4)), (Err(ENOMEM), Ok(())));
    w.end();
}

/// `thp_vma_allowable_order`: without an anon_vma there is nothing, whatever the size.
#[test]
fn memory_never_written_cannot_be_collapsed() {
    let mut w = World::new();
    w.map(0, 4 * HUGE, RW);
    let parts = [(0, HUGE), (1, 2), (1, 2 * HUGE - 2)];
    for _ in 0..2 {
        for (from, n) in parts {
            assert_eq!(w.advise(from, n, Advice::Collapse), Err(EINVAL));
        }
        assert_eq!(w.get(0), Ok(0), "a load makes no difference");
    }
    w.put(0, 1);
    assert_eq!(w.advise(0, HUGE, Advice::Collapse), Ok(()));
    // From a boundary to itself there is nothing to be done; a part that reaches none is refused.
    assert_eq!(w.advise(1, 2 * HUGE - 2, Advice::Collapse), Ok(()));
    assert_eq!(w.advise(1, 2, Advice::Collapse), Err(EINVAL));
    w.end();
}

fn scan(w: &mut World, merger: &mut Merger, spaces: &[&Mm]) -> usize {
    (0..2)
        .map(|_| merger.scan(&mut w.thread.cx(), spaces))
        .sum()
}
fn scan_anew(w: &mut World, spaces: &[&Mm]) -> usize {
    let mut merger = Merger::new(&w.machine);
    scan(w, &mut merger, spaces)
}
/// Pages `[0, 12)` mergeable; those given hold these bytes.
fn mergeable(bytes: &[u8]) -> World {
    let mut w = World::new();
    w.map(0, 12, RW);
    w.advise(0, 12, Advice::Mergeable).unwrap();
    for (page, &byte) in (0..).zip(bytes) {
        w.put(page, byte);
    }
    w.told();
    w
}

/// `try_to_merge_two_pages`.
#[test]
fn of_two_equal_pages_the_second_stays_and_pages_without_a_twin_see_no_window() {
    let mut w = mergeable(&[1, 2, 1, 2, 1, 2, 9]);
    let mm = w.mm.clone();
    assert_eq!(scan_anew(&mut w, &[&mm]), 4);
    let windows = "W2..3 W0..1 W0..1 W3..4 W1..2 W1..2 W4..5 W4..5 W5..6 W5..6";
    assert_eq!(w.told(), windows);
    for (page, byte) in (0..).zip([1, 2, 1, 2, 1, 2, 9]) {
        assert_eq!(w.get(page), Ok(byte));
    }
    w.check_rmap();
    w.end();
}

/// `rmap_item->oldchecksum`: a page that changes between scans is left alone.
#[test]
fn a_page_is_merged_when_its_bytes_stood_still_for_a_scan() {
    let mut w = mergeable(&[1, 1, 3]);
    let mm = w.mm.clone();
    let mut merger = Merger::new(&w.machine);
    assert_eq!(merger.scan(&mut w.thread.cx(), &[&mm]), 0);
    w.put(1, 3);
    assert_eq!(merger.scan(&mut w.thread.cx(), &[&mm]), 0);
    assert_eq!(w.told(), "");
    assert_eq!(merger.scan(&mut w.thread.cx(), &[&mm]), 1);
    assert_eq!(w.told(), "W2..3 W1..2 W1..2");
    w.end();
}

/// `wp_can_reuse_anon_folio`: a merged page is copied also by the last who has it; so for a reader
/// from outside.
#[test]
fn a_merged_page_is_nobodys_own() {
    let mut w = mergeable(&[1, 1]);
    let mm = w.mm.clone();
    scan_anew(&mut w, &[&mm]);
    w.told();
    w.put(0, 5);
    w.put(1, 6);
    assert_eq!(w.told(), "W0..1 W1..2");
    w.put(1, 7);
    assert_eq!(w.told(), "");
    w.check_rmap();
    w.end();
}

/// `ksm_madvise`, `prep_move_vma`.
#[test]
fn advice_and_moves_unmerge() {
    let mut w = mergeable(&[1, 1, 1, 1, 8]);
    let mm = w.mm.clone();
    let mut merger = Merger::new(&w.machine);
    scan(&mut w, &mut merger, &[&mm]);
    w.told();
    w.advise(0, 2, Advice::Unmergeable).unwrap();
    assert_eq!(w.told(), "W0..1 W1..2");
    w.put(0, 4);
    assert_eq!(w.told(), "", "its own again");
    w.remap(2, 3, 3, MAYMOVE | emmu::mm::MremapFlags::FIXED, 20);
    assert_eq!(w.told(), "W2..3 W3..4 W2..5 W2..5");
    assert_eq!((w.get(20), w.get(22)), (Ok(1), Ok(8)));
    assert_eq!(scan(&mut w, &mut merger, &[&mm]), 1, "there too");
    w.told();
    merger.unmerge_all(&mut w.thread.cx(), &[&mm]);
    assert_eq!(w.told(), "W20..21 W21..22");
    assert_eq!(scan(&mut w, &mut merger, &[&mm]), 0, "nobody asked again");
    w.check_rmap();
    w.end();
}

/// `__ksm_enter`: who came first is scanned first.
#[test]
fn address_spaces_are_scanned_in_the_order_in_which_they_came() {
    let mut w = World::new();
    w.map(0, 2, RW);
    let child = w.fork();
    let first = w.mm.clone();
    for mm in [&child, &first] {
        w.inside(mm, |w| {
            w.put(0, 1);
            w.advise(0, 2, Advice::Mergeable).unwrap();
        });
    }
    w.told();
    // The child's page came first, so the parent's stays.
    assert_eq!(scan_anew(&mut w, &[&first, &child]), 1);
    assert_eq!(w.told(), "W0..1", "protected, not replaced");
    assert_eq!((w.get(0), w.inside(&child, |w| w.get(0))), (Ok(1), Ok(1)));
    w.reap(&child);
    w.end();
}

/// Neither rights nor the kind of the mapping matter, as long as it is private and its pages are
/// its own.
#[test]
fn memory_without_rights_is_merged_and_shared_memory_is_not() {
    let mut w = mergeable(&[1, 1]);
    w.protect(0, 1, NONE).unwrap();
    w.share(20, 2);
    w.put(20, 1);
    w.advise(20, 2, Advice::Mergeable).unwrap();
    w.told();
    let mm = w.mm.clone();
    assert_eq!(scan_anew(&mut w, &[&mm]), 1);
    assert_eq!(w.told(), "W1..2 W0..1 W0..1");
    w.protect(0, 1, READ).unwrap();
    assert_eq!(w.get(0), Ok(1));
    w.end();
}

/// `vrm_set_new_addr` is not reached: nothing moves.
#[test]
fn a_mapping_that_stays_where_it_is_stays_merged() {
    let mut w = mergeable(&[1, 1]);
    let mm = w.mm.clone();
    scan_anew(&mut w, &[&mm]);
    w.told();
    assert_eq!(w.remap(0, 12, 12, STAY, 0), 0);
    assert_eq!(w.remap(0, 12, 11, STAY, 0), 0);
    assert_eq!(w.told(), "W11..12");
    w.put(0, 2);
    assert_eq!(w.told(), "W0..1", "merged until then");
    w.end();
}

/// `PR_SET_MEMORY_MERGE`: what is there and what comes, but nothing that is shared or droppable,
/// and no VMA is split.
#[test]
fn all_memory_is_merged_where_the_process_says_so() {
    let mut w = World::new();
    w.map(0, 4, RW);
    w.share(8, 2);
    w.fill(0, 2);
    let mm = w.mm.clone();
    mm.set_merge_all(&mut w.thread.cx(), true).unwrap();
    assert!(mm.merges_all(&mut w.thread.cx()));
    w.map(4, 2, RW);
    w.mmap(&droppable(20, 2)).unwrap();
    w.put(4, 1);
    w.told();
    assert_eq!(scan_anew(&mut w, &[&mm]), 2);
    assert_eq!(w.told(), "W1..2 W0..1 W0..1 W4..5 W4..5");
    assert_eq!(w.spans(), [(0, 6), (8, 10), (20, 22)]);
    let child = w.fork();
    assert!(child.merges_all(&mut w.thread.cx()));
    w.told();
    mm.set_merge_all(&mut w.thread.cx(), false).unwrap();
    assert_eq!(w.told(), "W0..1 W1..2 W4..5");
    w.put(0, 3);
    assert_eq!(w.told(), "");
    w.reap(&child);
    w.check_rmap();
    w.end();
}
