//! What the kernel does to pages by itself: huge pages move, `khugepaged` makes them, the shrinker
//! splits them; the swap device is taken out of use; a limit of memory reclaims in faults.

use crate::common::{
    PAGE, RW, World, at,
    objects::{disk, shmem, swapping},
};
use emmu::{
    Machine, MachineConfig, MemConfig,
    addr::{Pfn, Vpn},
    error::{Errno, FaultError, LimitBusy, NoMemory, SwapError},
    mm::{Advice, KhugepagedLimits, MapFlags, MremapArgs, MremapFlags, Prot, Pte},
    testkit::{Failed, fail_each},
};
use std::sync::Arc;

/// Pages of a huge page.
const HUGE: u64 = 512;

/// The byte that page `n` gets.
fn byte(n: u64) -> u8 {
    u8::try_from(n % 255 + 1).expect("small")
}
fn pfn(w: &mut World, page: u64) -> Option<Pfn> {
    let mut cx = w.thread.cx();
    match w.mm.walker(&mut cx).pte(Vpn::containing(at(page))) {
        Pte::Present { pfn, .. } => Some(pfn),
        _ => None,
    }
}
fn moves(w: &mut World, page: u64) -> bool {
    let old = pfn(w, page);
    let moved = w.mm.migrate(&mut w.thread.cx(), at(page));
    let moved = moved.expect("enough memory").is_some();
    let new = pfn(w, page);
    assert!(!moved || old != new);
    moved
}
/// Maps private memory in which the first `n` blocks are huge pages; page `p` of each that is named
/// holds a number.
fn huge(w: &mut World, n: u64) {
    w.map(0, n * HUGE, RW);
    w.advise(0, n * HUGE, Advice::HugePage).unwrap();
    for block in 0..n {
        for page in [0, 1, 100, 511] {
            w.put(block * HUGE + page, byte(page));
        }
    }
    w.told();
}
fn holds(w: &mut World, first: u64, pages: &[u64]) {
    for &page in pages {
        assert_eq!(w.get(first + page), Ok(byte(page)), "page {page}");
    }
}
/// True if the block of a page is mapped as one: a write after a fork splits the mapping then, in a
/// window over all of it.
fn is_one(w: &mut World, page: u64) -> bool {
    let child = w.fork();
    let byte = w.get(page).unwrap();
    w.told();
    w.put(page, byte);
    let block = page - page % HUGE;
    let one = w
        .told()
        .starts_with(&format!("W{}..{}", block, block + HUGE));
    w.reap(&child);
    one
}

#[test]
fn a_huge_page_moves_as_a_whole_and_stays_mapped_as_it_was() {
    let mut w = World::new();
    huge(&mut w, 2);
    w.protect(HUGE, 1, Prot::READ).unwrap(); // The second is mapped by small entries.
    let child = w.fork();
    w.told();
    assert!(moves(&mut w, 100) && moves(&mut w, HUGE + 100));
    assert_eq!(w.told(), "W0..512 W512..513 W513..1024");
    for mm in [Arc::clone(&w.mm), child] {
        w.inside(&mm, |w| {
            holds(w, 0, &[0, 1, 100, 511]);
            holds(w, HUGE, &[0, 1, 100, 511]);
            w.check_rmap();
        });
        if !Arc::ptr_eq(&mm, &w.mm) {
            w.reap(&mm);
        }
    }
    assert!(is_one(&mut w, 7) && !is_one(&mut w, HUGE + 7));
    assert_eq!(w.machine.mem().in_use(), 1024);
    w.end();
}

/// The right to write goes with the page of one process alone, and is none where a fork shares it.
#[test]
fn a_huge_page_that_moved_is_copied_by_the_next_write_only_if_it_is_shared() {
    let mut w = World::new();
    huge(&mut w, 1);
    assert!(moves(&mut w, 0));
    w.told();
    w.put(5, 9);
    assert_eq!(w.told(), "", "it is this process's own");
    let child = w.fork();
    assert!(moves(&mut w, 0));
    w.told();
    w.put(5, 8);
    assert_eq!(w.told(), "W0..512 W5..6");
    assert_eq!(w.inside(&child, |w| w.get(5)), Ok(9));
    w.reap(&child);
    w.end();
}

#[test]
fn a_huge_page_given_back_in_part_is_split_and_its_pages_move() {
    let mut w = World::new();
    huge(&mut w, 1);
    w.munmap(2, 8).unwrap();
    w.told();
    let old = [0, 1, 100, 511].map(|page| pfn(&mut w, page));
    assert!(moves(&mut w, 0));
    let split = "W0..2 W10..512";
    assert_eq!(w.told(), format!("{split} W1..2 W100..101 W511..512 W0..1"));
    let new = [0, 1, 100, 511].map(|page| pfn(&mut w, page));
    assert!(old.iter().zip(&new).all(|(old, new)| old != new));
    holds(&mut w, 0, &[0, 1, 100, 511]);
    // The others held only zeros.
    assert_eq!(w.machine.mem().in_use(), 4);
    w.check_rmap();
    w.end();
}

#[test]
fn without_a_free_huge_page_it_is_split_and_its_pages_move() {
    let mut w = World::on(crate::common::machine(1023 + 64));
    huge(&mut w, 1);
    assert!(moves(&mut w, 511));
    assert_eq!(
        w.told(),
        "W0..512 W1..2 W100..101 W511..512 W0..1",
        "one window splits it"
    );
    holds(&mut w, 0, &[0, 1, 100, 511]);
    assert_eq!(w.machine.mem().in_use(), 4);
    w.end();
}

#[test]
fn a_huge_page_of_shared_memory_moves_in_all_mappings() {
    let mut w = World::new();
    let file = shmem(&mut w, HUGE);
    w.map_file(0, HUGE, &file, 0, MapFlags::SHARED);
    w.map_file(1024 + 5, HUGE, &file, 0, MapFlags::SHARED);
    w.advise(0, HUGE, Advice::Collapse).unwrap();
    assert_eq!(w.get(1024 + 5), Ok(1));
    w.told();
    let used = w.machine.mem().in_use();
    assert!(moves(&mut w, 100));
    assert_eq!(w.told(), "W0..512 W1029..1541");
    assert_eq!((w.get(100), w.get(1024 + 105)), (Ok(101), Ok(101)));
    w.put(100, 3);
    assert_eq!(w.get(1024 + 105), Ok(3));
    let mut byte = [0];
    file.read_at(w.thread.cx(), 100 * PAGE, &mut byte).unwrap();
    assert_eq!(byte, [3]);
    assert_eq!(w.machine.mem().in_use(), used);
    w.check_rmap();
    drop(file);
    w.end();
}

#[test]
fn a_merged_page_moves_with_all_its_places() {
    let mut w = World::new();
    w.map(0, 8, RW);
    w.advise(0, 8, Advice::Mergeable).unwrap();
    w.fill(0, 3);
    let mm = Arc::clone(&w.mm);
    let pages = [(&*mm, at(0)), (&*mm, at(1)), (&*mm, at(2))];
    assert_eq!(w.machine.merge_same_pages(&mut w.thread.cx(), &pages), 2);
    let child = w.fork();
    w.told();
    assert!(moves(&mut w, 1));
    assert_eq!(
        w.told(),
        "W2..3 W1..2 W0..1",
        "the last that was merged first"
    );
    assert_eq!(pfn(&mut w, 0), pfn(&mut w, 2));
    assert_eq!(pfn(&mut w, 0), w.inside(&child, |w| pfn(w, 1)));
    w.put(0, 7);
    w.advise(0, 8, Advice::Unmergeable).unwrap();
    assert_eq!([0, 1, 2].map(|n| w.get(n).unwrap()), [7, 1, 1]);
    assert_ne!(pfn(&mut w, 1), pfn(&mut w, 2));
    w.reap(&child);
    w.end();
}

#[test]
fn the_shrinker_splits_what_was_given_back_in_part_and_nothing_else() {
    let mut w = World::new();
    huge(&mut w, 3);
    w.munmap(HUGE + 8, 2).unwrap();
    w.advise(2 * HUGE + 200, 4, Advice::DontNeed).unwrap();
    w.told();
    let machine = Arc::clone(&w.machine);
    assert_eq!(machine.split_deferred(&mut w.thread.cx()), 2);
    assert_eq!(w.told(), "W1024..1536 W512..520 W522..1024");
    assert_eq!(machine.split_deferred(&mut w.thread.cx()), 0);
    for block in 0..3 {
        holds(&mut w, block * HUGE, &[0, 1, 100, 511]);
    }
    assert!(is_one(&mut w, 0));
    w.check_rmap();
    w.end();
}

/// Maps four pages in each of three blocks, for khugepaged with these limits.
fn small_pages(limits: KhugepagedLimits) -> World {
    let mut w = World::with(MachineConfig {
        khugepaged: limits,
        memory: MemConfig {
            swap: 64,
            ..MemConfig::default()
        },
        ..MachineConfig::default()
    });
    w.map(0, 4 * HUGE, RW);
    for block in 0..3 {
        for page in [0, 1, 100, 511] {
            w.put(block * HUGE + page, byte(page));
        }
    }
    w.advise(0, 3 * HUGE, Advice::HugePage).unwrap();
    w.told();
    w
}
fn khugepaged(w: &mut World) -> (usize, String) {
    let machine = Arc::clone(&w.machine);
    let made = machine.khugepaged(&mut w.thread.cx());
    (made, w.told())
}

#[test]
fn khugepaged_makes_huge_pages_where_they_are_wanted() {
    let mut w = small_pages(KhugepagedLimits::default());
    w.put(3 * HUGE, 1);
    let told = "W0..512 W512..1024 W1024..1536".to_owned();
    assert_eq!(khugepaged(&mut w), (3, told));
    assert_eq!(khugepaged(&mut w), (0, String::new()));
    (0..3).for_each(|block| holds(&mut w, block * HUGE, &[0, 1, 100, 511]));
    assert!(is_one(&mut w, 0) && !is_one(&mut w, 3 * HUGE));
    w.end();
}

#[test]
fn khugepaged_heeds_its_limits() {
    let limits = KhugepagedLimits::default();
    let mut none = small_pages(KhugepagedLimits {
        none: 507,
        ..limits
    });
    assert_eq!(khugepaged(&mut none).0, 0);
    none.end();
    let mut shared = small_pages(KhugepagedLimits {
        shared: 3,
        ..limits
    });
    let child = shared.fork();
    shared.put(HUGE, 1);
    shared.told();
    assert_eq!(khugepaged(&mut shared), (1, "W512..1024".to_owned()));
    shared.reap(&child);
    shared.end();
    // With pages in swap, half of the block must be in use.
    let mut swap = small_pages(limits);
    swap.advise(0, 1, Advice::PageOut).unwrap();
    swap.fill(HUGE, 256);
    swap.advise(HUGE + 511, 1, Advice::PageOut).unwrap();
    swap.told();
    let told = "W512..1024 W1024..1536".to_owned();
    assert_eq!(khugepaged(&mut swap), (2, told));
    assert_eq!(swap.get(HUGE + 511), Ok(byte(511)));
    swap.end();
}

/// A page that neither the processor nor a device used is not worth a huge page.
#[test]
fn khugepaged_leaves_idle_memory_alone() {
    let mut w = small_pages(KhugepagedLimits::default());
    w.advise(0, HUGE, Advice::Cold).unwrap();
    w.told();
    let told = "W512..1024 W1024..1536".to_owned();
    assert_eq!(khugepaged(&mut w), (2, told));
    w.end();
}

#[test]
fn swapoff_brings_every_page_back_without_a_window() {
    let mut w = swapping(4096, 256);
    w.map(0, 8, RW);
    (0..8).for_each(|n| w.put(n, byte(n)));
    let file = shmem(&mut w, 4);
    w.map_file(16, 4, &file, 0, MapFlags::SHARED);
    assert_eq!(w.get(17), Ok(2));
    let child = w.fork();
    assert!(w.machine.reclaim_all(&mut w.thread.cx()) > 0);
    assert!(w.machine.mem().swap().used() >= 12);
    w.told();
    let machine = Arc::clone(&w.machine);
    assert_eq!(machine.swapoff(&mut w.thread.cx()), Ok(()));
    assert_eq!(w.told(), "");
    let swap = w.machine.mem().swap();
    assert_eq!((swap.used(), swap.cached()), (0, 0));
    assert_eq!(pfn(&mut w, 3), w.inside(&child, |w| pfn(w, 3)));
    w.put(3, 9);
    assert_eq!(w.told(), "W3..4", "the child has it as well");
    assert_eq!(w.inside(&child, |w| w.get(3)), Ok(4));
    w.reap(&child);
    w.told();
    w.put(4, 9);
    assert_eq!(w.told(), "", "it is this process's own");
    // Nothing goes to a device that is not in use.
    w.advise(0, 8, Advice::PageOut).unwrap();
    assert_eq!(w.machine.mem().swap().used(), 0);
    assert_eq!(
        machine.swapoff(&mut w.thread.cx()),
        Err(SwapError::NotInUse)
    );
    assert_eq!(machine.swapon(), Ok(()));
    assert_eq!(machine.swapon(), Err(SwapError::InUse));
    w.advise(0, 8, Advice::PageOut).unwrap();
    assert_eq!(w.machine.mem().swap().used(), 8);
    assert_eq!((w.get(3), w.get(4), w.get(17)), (Ok(9), Ok(9), Ok(2)));
    drop(file);
    w.end();
}

#[test]
fn swapoff_without_memory_for_the_pages_leaves_the_device_in_use() {
    let mut w = swapping(16, 64);
    w.map_with(0, 24, RW, MapFlags::NORESERVE);
    (0..12).for_each(|n| w.put(n, byte(n)));
    w.advise(0, 12, Advice::PageOut).unwrap();
    (12..24).for_each(|n| w.put(n, byte(n)));
    let machine = Arc::clone(&w.machine);
    let why = SwapError::NoMemory(NoMemory::Frame);
    assert_eq!(machine.swapoff(&mut w.thread.cx()), Err(why));
    assert_eq!(why.errno(), Errno::ENOMEM);
    for page in 0..24 {
        w.advise(0, 24, Advice::PageOut).unwrap(); // There is room for a few only.
        assert_eq!(w.get(page), Ok(byte(page)));
    }
    w.end();
    let without = Machine::new(MachineConfig::default());
    let mut thread = without.enter().unwrap();
    assert_eq!(without.swapoff(&mut thread.cx()), Err(SwapError::NotInUse));
    assert_eq!(without.swapon(), Err(SwapError::NotInUse));
}

/// The end of a lock in memory, by whatever call, does not make a merged page reclaimable: each of
/// its mappings would come back to a family that leads to one of them.
#[test]
fn a_merged_page_stays_in_memory_when_a_lock_of_it_ends() {
    let ends: [fn(&mut World); 3] = [
        |w| w.mm.munlockall(&mut w.thread.cx()),
        |w| w.put(0, 2),
        |w| w.munmap(0, 1).unwrap(),
    ];
    for end in ends {
        let mut w = swapping(4096, 256);
        w.map(0, 4, RW);
        (0..4).for_each(|n| w.put(n, 1));
        let cx = &mut w.thread.cx();
        let pages = [0, 1, 2].map(|n| (&*w.mm, at(n)));
        w.mm.mlock(cx, at(0), PAGE).unwrap();
        assert_eq!(w.machine.merge_same_pages(cx, &pages), 2);
        end(&mut w);
        w.machine.reclaim_all(&mut w.thread.cx());
        assert_eq!(w.machine.mem().swap().used(), 1, "page 3");
        assert_eq!([1, 2, 3].map(|n| w.get(n)), [Ok(1); 3]);
        w.check_rmap();
        w.end();
    }
}

/// The reverse map of a merged page goes by its place: a mapping that moves has pages of its own
/// before, also one that was never said to be mergeable.
#[test]
fn a_merged_page_does_not_move_with_its_mapping() {
    let mut w = swapping(4096, 256);
    w.map(0, 4, RW);
    (0..4).for_each(|n| w.put(n, 1));
    let cx = &mut w.thread.cx();
    let pages = [0, 1, 2].map(|n| (&*w.mm, at(n)));
    assert_eq!(w.machine.merge_same_pages(cx, &pages), 2);
    let flags = MremapFlags::MAYMOVE | MremapFlags::FIXED;
    for (from, to) in [(0, 16), (2, 32)] {
        let args = MremapArgs {
            addr: at(from),
            old_len: 2 * PAGE,
            new_len: 2 * PAGE,
            flags,
            new_addr: at(to),
        };
        w.mm.mremap(cx, args).unwrap();
    }
    for n in [16, 17, 32, 33] {
        assert!(w.mm.migrate(cx, at(n)).unwrap().is_some(), "page {n}");
    }
    w.check_rmap();
    assert_eq!([16, 17, 32, 33].map(|n| w.get(n)), [Ok(1); 4]);
    w.end();
}

#[test]
fn a_fault_at_the_limit_of_memory_reclaims_first() {
    let mut w = swapping(4096, 256);
    w.map(0, 64, RW);
    w.fill(0, 24);
    let machine = Arc::clone(&w.machine);
    assert_eq!(
        machine.set_memory_limit(&mut w.thread.cx(), Some(40)),
        Ok(())
    );
    w.told();
    let most = || u64::from(machine.mem().in_use()) + machine.mem().tables_in_use();
    for n in 24..60 {
        w.put(n, 1);
        assert!(most() <= 40);
    }
    assert!(!w.told().is_empty() && machine.mem().swap().used() > 0);
    (0..60).for_each(|n| assert_eq!(w.get(n), Ok(1)));
    // Ahead of use as well.
    w.map_with(64, 64, RW, MapFlags::POPULATE);
    assert!(most() <= 40);
    assert_eq!(machine.set_memory_limit(&mut w.thread.cx(), None), Ok(()));
    w.fill(64, 64);
    assert!(most() > 60);
    w.end();
}

/// Populated pages are young and referenced, so the first look makes all of them active, and no
/// inactive page is left.
#[test]
fn memory_that_is_all_active_goes_at_the_limit() {
    let mut w = swapping(4096, 256);
    w.map(0, 128, RW);
    let machine = Arc::clone(&w.machine);
    assert_eq!(
        machine.set_memory_limit(&mut w.thread.cx(), Some(40)),
        Ok(())
    );
    for n in [0, 64] {
        assert_eq!(w.advise(n, 64, Advice::PopulateWrite), Ok(()));
    }
    w.fill(0, 128);
    (0..128).for_each(|n| assert_eq!(w.get(n), Ok(1)));
    w.end();
}

#[test]
fn a_limit_that_nothing_can_be_reclaimed_for_is_refused_or_ends_the_fault() {
    let mut w = World::new();
    w.map(0, 64, RW);
    w.fill(0, 24);
    let machine = Arc::clone(&w.machine);
    let busy = machine.set_memory_limit(&mut w.thread.cx(), Some(8));
    assert_eq!(busy, Err(LimitBusy(8)));
    assert_eq!(busy.unwrap_err().errno(), Errno::EBUSY);
    w.put(24, 1); // The limit is none, as before.
    let now = u64::from(machine.mem().in_use()) + machine.mem().tables_in_use();
    assert_eq!(
        machine.set_memory_limit(&mut w.thread.cx(), Some(now)),
        Ok(())
    );
    let store = w.mm.store(&mut w.thread.cx(), at(30), 1);
    assert_eq!(store, Err(FaultError::NoMemory(NoMemory::Frame)));
    w.munmap(0, 4).unwrap();
    w.put(30, 1);
    w.end();
}

/// A page of a clean file needs no swap.
#[test]
fn pages_of_files_make_room_under_the_limit() {
    let mut w = swapping(4096, 64);
    let (_disk, file) = disk(&mut w, 32);
    w.map_file(0, 32, &file, 0, MapFlags::SHARED);
    (0..32).for_each(|n| assert_eq!(w.get(n), Ok(byte(n))));
    w.map(64, 32, RW);
    let machine = Arc::clone(&w.machine);
    assert_eq!(
        machine.set_memory_limit(&mut w.thread.cx(), Some(48)),
        Ok(())
    );
    w.fill(64, 32);
    (0..32).for_each(|n| assert_eq!(w.get(n), Ok(byte(n))));
    assert_eq!(machine.set_memory_limit(&mut w.thread.cx(), None), Ok(()));
    w.mm.exit(&mut w.thread.cx());
}

/// Each allocation of an operation fails in turn: the error is typed, no byte is lost, and every
/// count is right in the end.
#[track_caller]
fn fails_each(
    prepare: impl Fn(&mut World),
    work: impl Fn(&Machine, &mut World) -> Result<(), Errno>,
) -> u64 {
    let world = || {
        let mut w = swapping(4096, 1024);
        huge(&mut w, 2);
        prepare(&mut w);
        w
    };
    let machine = |w: &World| Arc::clone(&w.machine);
    let work = |w: &mut World| work(&Arc::clone(&w.machine), w);
    fail_each(world, machine, work, |mut w, came| {
        if let Failed::Reported(errno) = came {
            assert_eq!(errno, Errno::ENOMEM);
        }
        for block in 0..2 {
            holds(&mut w, block * HUGE, &[0, 1, 100, 511]);
        }
        w.check_rmap();
        w.end();
    })
}

#[test]
fn a_failed_allocation_leaves_every_count_right() {
    let migrate = |_: &Machine, w: &mut World| {
        let moved = w.mm.migrate(&mut w.thread.cx(), at(0));
        moved.map(drop).map_err(|why| why.errno())
    };
    assert_eq!(fails_each(|_| {}, migrate), 1);
    assert!(fails_each(|w| w.munmap(2, 8).unwrap(), migrate) >= 4);
    let out = |w: &mut World| w.advise(0, HUGE, Advice::PageOut).unwrap();
    let swapoff = |machine: &Machine, w: &mut World| {
        let done = machine.swapoff(&mut w.thread.cx());
        let _on = machine.swapon();
        done.map_err(|why| why.errno())
    };
    assert!(fails_each(out, swapoff) >= 4);
    let split = |w: &mut World| w.protect(HUGE, 8, Prot::READ).unwrap();
    let collapse = |machine: &Machine, w: &mut World| {
        w.protect(HUGE, 8, RW).unwrap();
        machine.khugepaged(&mut w.thread.cx());
        Ok(())
    };
    assert!(fails_each(split, collapse) >= 1);
}
