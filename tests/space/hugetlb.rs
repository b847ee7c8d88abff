//! Huge pages of a pool: what is promised, taken and given back, and the calls on such memory. The
//! counts are those that Linux showed in `/proc/meminfo` for the same calls.

use crate::common::{
    PAGE, RW, World, at,
    calls::{FIXED, READ, Sys, private, remap, shared},
    driver::Driver,
};
use emmu::{
    FaultError, HugePool, HugePoolConfig, HugeSize, MachineConfig, MemConfig, Mm,
    error::{
        Errno::{EINVAL, ENOMEM, EOVERFLOW},
        Signal,
    },
    file::{File, FileMode, HugetlbFile},
    frame::Contents,
    mm::{Advice, MapFlags, MmapArgs, PageState, PinKind},
    notifier::Access,
};
use std::sync::Arc;

/// Small pages in a huge one.
const HUGE: u64 = 512;
const BYTES: u64 = HUGE * PAGE;
const SIZE: HugeSize = HugeSize::Mib2;

/// A machine with a pool of `pages`, and at most `overcommit` more.
fn pool(pages: u64, overcommit: u64) -> World {
    World::with(MachineConfig {
        memory: MemConfig {
            frames: 8192,
            ..MemConfig::default()
        },
        huge_pages: HugePoolConfig { pages, overcommit },
        ..MachineConfig::default()
    })
}
/// Private huge pages, the first at huge page `from` of the test.
fn huge(from: u64, n: u64) -> MmapArgs {
    private(from * HUGE, n * HUGE).flags(MapFlags::HUGETLB)
}
fn file(w: &World, n: u64) -> Arc<File> {
    let object = HugetlbFile::memfd(w.machine.host(), "h", n * BYTES, SIZE).expect("small");
    File::open(object, FileMode::ReadWrite)
}

impl World {
    /// Total, free, reserved and surplus pages.
    fn pool(&self) -> (u64, u64, i64, u64) {
        let HugePool {
            total,
            free,
            reserved,
            surplus,
            ..
        } = self.machine.mem().huge_pool(SIZE);
        (total, free, reserved, surplus)
    }
    fn map_huge(&mut self, from: u64, n: u64) {
        assert_eq!(self.mmap(&huge(from, n)), Ok(at(from * HUGE)));
    }
    fn store(&mut self, page: u64, byte: u8) -> Result<(), FaultError> {
        self.mm.store(&mut self.thread.cx(), at(page), byte)
    }
    /// Unmaps huge pages.
    fn unmap(&mut self, from: u64, n: u64) {
        self.munmap(from * HUGE, n * HUGE).expect("whole pages");
    }
    /// Ends the world with the whole pool free.
    fn end_with(mut self, pages: u64) {
        self.mm.exit(&mut self.thread.cx());
        assert_eq!(self.pool(), (pages, pages, 0, 0));
        assert_eq!(self.machine.mem().set_huge_pages(SIZE, 0), 0);
        self.end();
    }
}

#[test]
fn a_private_mapping_reserves_and_its_faults_take() {
    let mut w = pool(6, 0);
    assert_eq!(w.pool(), (6, 6, 0, 0));
    w.map_huge(0, 2);
    assert_eq!(w.pool(), (6, 6, 2, 0));
    w.put(5, 1);
    assert_eq!(w.pool(), (6, 5, 1, 0));
    assert_eq!((w.get(5), w.get(511)), (Ok(1), Ok(0)), "one page for all");
    assert_eq!(w.told(), "", "a new page has no other mapping");
    w.advise(0, HUGE, Advice::DontNeed).unwrap();
    assert_eq!(w.pool(), (6, 6, 2, 0), "the promise is kept");
    assert_eq!(w.get(5), Ok(0));
    w.unmap(0, 2);
    assert_eq!(w.pool(), (6, 6, 0, 0));
    w.end_with(6);
}

/// The mapping with `MAP_NORESERVE` takes what nobody else was promised.
#[test]
fn a_mapping_without_a_reservation_may_find_no_page() {
    let mut w = pool(3, 0);
    assert_eq!(w.mmap(&huge(0, 4)), Err(ENOMEM));
    w.map_huge(0, 2);
    let later = huge(4, 2).flags(MapFlags::NORESERVE);
    assert_eq!(w.mmap(&later), Ok(at(4 * HUGE)));
    assert_eq!(w.pool(), (3, 3, 2, 0));
    w.put(4 * HUGE, 1);
    let refused = w.store(5 * HUGE, 1).expect_err("the others are promised");
    assert_eq!(refused.signal(), Some(Signal::Bus));
    w.put(0, 1);
    w.put(HUGE, 1);
    assert_eq!(w.pool(), (3, 0, 0, 0));
    w.unmap(0, 2);
    w.put(5 * HUGE, 1);
    assert_eq!(w.pool(), (3, 1, 0, 0));
    w.end_with(3);
}

/// `hugetlb_wp`: the child copies without a reservation. If no page is left for the parent, it
/// takes the child's.
#[test]
fn a_parent_takes_its_pages_back_from_a_child() {
    let mut w = pool(3, 0);
    w.map_huge(0, 2);
    w.put(0, 1);
    w.put(HUGE, 2);
    let child = w.fork();
    w.told();
    w.inside(&child, |w| {
        w.put(1, 7);
        assert_eq!((w.get(0), w.get(HUGE)), (Ok(1), Ok(2)));
        w.store(HUGE, 7).expect_err("there is no page for a copy");
    });
    assert_eq!(w.pool(), (3, 0, 0, 0));
    w.put(0, 3);
    assert_eq!(w.told(), "", "the child has a copy of its own");
    w.put(HUGE, 4);
    w.inside(&child, |w| {
        assert_eq!((w.get(0), w.get(1)), (Ok(1), Ok(7)));
        w.get(HUGE).expect_err("its page was taken");
    });
    assert_eq!((w.get(0), w.get(1), w.get(HUGE)), (Ok(3), Ok(0), Ok(4)));
    w.reap(&child);
    w.end_with(3);
}

/// The copy of a page that both still map; the window covers the page.
#[test]
fn a_copy_opens_a_window_over_its_page() {
    let mut w = pool(4, 0);
    w.map_huge(0, 2);
    w.put(HUGE, 2);
    let child = w.fork();
    w.told();
    w.put(HUGE + 9, 3);
    assert_eq!(w.told(), "W512..1024");
    assert_eq!(
        w.inside(&child, |w| (w.get(HUGE), w.get(HUGE + 9))),
        (Ok(2), Ok(0))
    );
    w.reap(&child);
    w.end_with(4);
}

/// The promise ends with the mapping, and the page, which brings it back, later.
#[test]
fn the_count_of_reservations_is_below_zero_while_a_child_has_the_page() {
    let mut w = pool(6, 0);
    w.map_huge(0, 2);
    w.put(0, 1);
    let child = w.fork();
    w.unmap(0, 2);
    assert_eq!(w.pool(), (6, 5, -1, 0));
    w.reap(&child);
    w.end_with(6);
}

/// `mremap` of a part hands over the promise to the whole, of which the rest is never given back.
#[test]
fn a_move_of_a_part_leaves_promises_behind() {
    let mut w = pool(6, 0);
    w.map_huge(0, 4);
    assert_eq!(
        w.remap(2 * HUGE, 2 * HUGE, 2 * HUGE, FIXED, 8 * HUGE),
        8 * HUGE
    );
    w.put(0, 1);
    w.unmap(0, 2);
    w.unmap(8, 2);
    assert_eq!(w.pool(), (6, 6, 2, 0));
    assert_eq!(w.machine.mem().set_huge_pages(SIZE, 0), 0);
    assert_eq!(w.pool(), (2, 2, 2, 2), "they stay as surplus pages");
}

#[test]
fn surplus_pages_come_for_a_promise_and_go_with_their_use() {
    let mut w = pool(3, 2);
    assert_eq!(w.mmap(&huge(0, 6)), Err(ENOMEM));
    assert_eq!(w.pool(), (3, 3, 0, 0));
    w.map_huge(0, 5);
    assert_eq!(w.pool(), (5, 5, 5, 2));
    w.put(0, 1);
    assert_eq!(w.pool(), (5, 4, 4, 2));
    w.advise(0, HUGE, Advice::DontNeed).unwrap();
    assert_eq!(w.pool(), (4, 4, 4, 1), "and its promise with it");
    w.put(0, 1);
    assert_eq!(w.pool(), (5, 4, 4, 2));
    w.unmap(0, 5);
    w.end_with(3);
}

#[test]
fn a_pool_that_shrinks_keeps_what_is_promised_as_surplus() {
    let mut w = pool(6, 0);
    w.map_huge(0, 5);
    let mem = Arc::clone(w.machine.mem());
    assert_eq!(mem.set_huge_pages(SIZE, 3), 3);
    assert_eq!(w.pool(), (5, 5, 5, 2));
    assert_eq!(mem.set_huge_pages(SIZE, 6), 6);
    assert_eq!(w.pool(), (6, 6, 5, 0));
    assert_eq!(mem.set_huge_pages(SIZE, 0), 0);
    assert_eq!(w.pool(), (5, 5, 5, 5));
    w.unmap(0, 5);
    w.end_with(0);
}

/// A file's pages are promised once, to all of its shared mappings.
#[test]
fn shared_mappings_reserve_for_their_file() {
    let mut w = pool(6, 0);
    let f = file(&w, 4);
    w.map_file(0, 3 * HUGE, &f, 0, MapFlags::SHARED);
    assert_eq!(w.pool(), (6, 6, 3, 0));
    w.put(0, 1);
    assert_eq!(w.pool(), (6, 5, 2, 0));
    w.map_file(8 * HUGE, 4 * HUGE, &f, 0, MapFlags::SHARED);
    assert_eq!(w.pool(), (6, 5, 3, 0), "one page more");
    assert_eq!(w.get(8 * HUGE), Ok(1));
    w.unmap(0, 3);
    assert_eq!(w.pool(), (6, 5, 3, 0), "the file keeps its promises");
    f.punch_hole(w.thread.cx(), 0, BYTES).unwrap();
    assert_eq!(w.pool(), (6, 6, 3, 0));
    w.put(8 * HUGE, 2);
    f.truncate(w.thread.cx(), 2 * BYTES).unwrap();
    assert_eq!(w.pool(), (6, 5, 1, 0));
    let beyond = w.get(10 * HUGE).expect_err("it was cut off");
    assert!(matches!(beyond, FaultError::Beyond(_)));
    w.unmap(8, 4);
    drop(f);
    w.end_with(6);
}

/// A private mapping of a file reads the file's pages and writes copies.
#[test]
fn a_private_mapping_of_a_file_copies() {
    let mut w = pool(4, 0);
    let f = file(&w, 2);
    w.map_file(0, 2 * HUGE, &f, 0, MapFlags::SHARED);
    w.put(3, 1);
    w.map_file(8 * HUGE, 2 * HUGE, &f, 0, MapFlags::PRIVATE);
    assert_eq!(w.pool(), (4, 3, 3, 0));
    assert_eq!(w.get(8 * HUGE + 3), Ok(1));
    w.told();
    w.put(8 * HUGE + 4, 2);
    assert_eq!(w.told(), "W4096..4608");
    assert_eq!((w.get(8 * HUGE + 3), w.get(4)), (Ok(1), Ok(0)));
    assert_eq!(w.pool(), (4, 2, 2, 0));
    let mut bytes = [0; 2];
    let read = f
        .read_at(w.thread.cx(), 3 * PAGE, &mut bytes)
        .map(|_| bytes);
    assert_eq!(read, Ok([1, 0]));
    f.write_at(w.thread.cx(), 0, &[1])
        .expect_err("only mappings write");
    f.truncate(w.thread.cx(), 0).unwrap();
    assert!(w.get(8 * HUGE + 3).is_err(), "copies are cut off as well");
    w.unmap(8, 2);
    w.unmap(0, 2);
    drop(f);
    w.end_with(4);
}

/// `hugetlb_vm_op_split`, and the calls that round.
#[test]
fn calls_on_parts_of_a_huge_page_are_refused() {
    let mut w = pool(4, 0);
    w.map_huge(0, 2);
    w.put(0, 1);
    w.put(HUGE, 2);
    w.told();
    assert_eq!(w.munmap(1, 1), Err(EINVAL));
    assert_eq!(w.munmap(0, HUGE + 1), Err(EINVAL));
    assert_eq!(w.protect(1, HUGE, READ), Err(EINVAL));
    assert_eq!(w.mremap(remap(1, HUGE, HUGE, FIXED, 8 * HUGE)), Err(EINVAL));
    assert_eq!(w.advise(HUGE + 1, 1, Advice::DontNeed), Err(EINVAL));
    for advice in [
        Advice::Cold,
        Advice::PageOut,
        Advice::GuardInstall,
        Advice::Free,
    ] {
        assert_eq!(w.advise(0, 2 * HUGE, advice), Err(EINVAL), "{advice:?}");
    }
    assert_eq!(w.told(), "");
    assert_eq!((w.get(0), w.get(HUGE)), (Ok(1), Ok(2)));
    // The end is rounded down: nothing is left of the range.
    assert_eq!(w.advise(0, HUGE - 1, Advice::DontNeed), Ok(()));
    assert_eq!(w.get(0), Ok(1));
    assert_eq!(w.advise(0, HUGE + 1, Advice::DontNeed), Ok(()));
    assert_eq!((w.get(0), w.get(HUGE)), (Ok(0), Ok(2)));
    assert_eq!(w.protect(0, HUGE, READ), Ok(()));
    assert_eq!(w.spans(), [(0, HUGE), (HUGE, 2 * HUGE)]);
    w.end_with(4);
}

/// Neither page-out nor migration nor a merge moves or splits such a page.
#[test]
fn a_huge_page_of_a_pool_stays_where_it_is() {
    let mut w = pool(2, 0);
    w.map_huge(0, 1);
    w.put(0, 1);
    let states = |w: &mut World| -> Vec<_> {
        let mm = Arc::clone(&w.mm);
        let pages = mm.pagemap(&mut w.thread.cx(), World::pages(0, HUGE));
        pages.into_iter().map(|(_, state)| state).collect()
    };
    let before = states(&mut w);
    let PageState::Anon(first) = before[0] else {
        panic!("{:?}", before[0])
    };
    assert!(first.number().is_multiple_of(512));
    assert_eq!(before.len(), 512);
    w.machine.reclaim_all(&mut w.thread.cx());
    assert_eq!(states(&mut w), before);
    w.end_with(2);
}

/// `huge_pmd_share`: where tables may be shared, windows reach over all of such a table.
#[test]
fn windows_over_a_shared_gib_cover_all_of_it() {
    const GIB: u64 = HUGE * HUGE;
    let mut w = pool(2, 0);
    let f = file(&w, HUGE + 1);
    let flags = MapFlags::SHARED | MapFlags::NORESERVE;
    w.map_file(0, GIB + HUGE, &f, 0, flags);
    w.put(HUGE, 1);
    w.told();
    w.protect(HUGE, HUGE, READ).unwrap();
    assert!(w.windows().contains(&(0, GIB)));
    w.told();
    w.protect(GIB, HUGE, READ).unwrap();
    assert_eq!(w.windows(), [(GIB, GIB + HUGE)], "no whole GiB");
    w.unmap(0, HUGE + 1);
    drop(f);
    w.end_with(2);
}

/// A page of 1 GiB is mapped and given back as one.
#[test]
fn a_pool_of_1_gib_pages() {
    const GIB: u64 = HUGE * HUGE;
    let mut w = World::with(MachineConfig {
        memory: MemConfig {
            frames: (2 * GIB + 64) as u32,
            contents: Contents::None,
            swap: 0,
        },
        huge_pages_1g: HugePoolConfig {
            pages: 1,
            overcommit: 0,
        },
        ..MachineConfig::default()
    });
    let size = HugeSize::Gib1;
    let args = private(0, GIB).flags(MapFlags::HUGETLB | MapFlags::HUGE_1GB);
    assert_eq!(w.mmap(&args), Ok(at(0)));
    assert_eq!(w.machine.mem().huge_pool(size).reserved, 1);
    assert_eq!(
        w.mmap(&private(2 * GIB, GIB).flags(args.flags)),
        Err(ENOMEM)
    );
    w.put(GIB - 1, 1);
    assert_eq!(w.machine.mem().huge_pool(size).free, 0);
    assert_eq!(w.munmap(0, HUGE), Err(EINVAL), "it is one page");
    w.told();
    w.munmap(0, GIB).unwrap();
    assert_eq!(w.told(), "W0..262144");
    assert_eq!(w.machine.mem().huge_pool(size).free, 1);
    assert_eq!(w.machine.mem().set_huge_pages(size, 0), 0);
    w.end();
}

/// A device never reads what the process does not read.
#[test]
fn a_device_follows_copies_and_losses() {
    let mut w = pool(3, 0);
    w.map_huge(0, 1);
    w.put(0, 1);
    let (driver, registration) = w.mm.register(&mut w.thread.cx(), Driver::new);
    let child = w.fork();
    let (own, of_child) = w.inside(&child, |w| w.mm.register(&mut w.thread.cx(), Driver::new));
    let read = |w: &mut World, driver: &Driver, mm: &Mm| driver.read(&mut w.thread.cx(), mm, at(0));
    let mm = Arc::clone(&w.mm);
    assert_eq!(read(&mut w, &driver, &mm), Ok(1));
    assert_eq!(read(&mut w, &own, &child), Ok(1));
    w.put(0, 2);
    assert_eq!(read(&mut w, &driver, &mm), Ok(2));
    assert_eq!(read(&mut w, &own, &child), Ok(1));
    w.advise(0, HUGE, Advice::DontNeed).unwrap();
    assert_eq!(driver.entries(&mut w.thread.cx()), 0);
    assert_eq!(read(&mut w, &driver, &mm), Ok(0));
    drop((registration, of_child));
    w.reap(&child);
    w.end_with(3);
}

/// Whatever allocation fails, every page and promise is given back.
#[test]
fn a_failing_allocation_leaves_the_counts_right() {
    for nth in 1..40 {
        let mut w = pool(4, 0);
        let f = file(&w, 2);
        w.machine.mem().inject().arm(nth);
        let _all: Option<()> = all_sorts(&mut w, &f);
        w.machine.mem().inject().disarm();
        drop(f);
        w.end_with(4);
    }
}
fn all_sorts(w: &mut World, f: &Arc<File>) -> Option<()> {
    fn done<T, E>(result: Result<T, E>) -> Option<T> {
        result.ok()
    }
    done(w.mmap(&huge(0, 1)))?;
    let of_file = shared(2 * HUGE, 2 * HUGE).file(f, 0);
    done(w.mmap(&of_file))?;
    done(w.store(0, 1))?;
    done(w.store(2 * HUGE, 1))?;
    let child = done(w.mm.fork(&mut w.thread.cx()))?;
    let copied = w.inside(&child, |w| done(w.store(0, 2)));
    let moved: Sys<u64> = w.mremap(remap(0, HUGE, HUGE, FIXED, 8 * HUGE));
    w.reap(&child);
    copied?;
    done(moved)?;
    done(w.store(8 * HUGE, 3))
}

/// `copy_hugetlb_page_range`: a pinned page stays with the parent, and the child gets a page of its
/// own, if there is one that nobody was promised.
#[test]
fn a_fork_copies_a_pinned_huge_page() {
    let mut w = pool(3, 0);
    w.map_huge(0, 2);
    w.put(7, 1);
    let mm = Arc::clone(&w.mm);
    let buffer = mm.pin(
        &mut w.thread.cx(),
        at(7),
        4096,
        Access::Write,
        PinKind::LongTerm,
    );
    let buffer = buffer.expect("it is mapped");
    let child = w.fork();
    assert_eq!(w.pool(), (3, 1, 1, 0));
    w.told();
    assert_eq!(buffer.write_at(0, &[2]), 1);
    assert_eq!(w.get(7), Ok(2));
    w.put(7, 3);
    assert_eq!(w.told(), "", "the page is the parent's own");
    assert_eq!(w.inside(&child, |w| (w.get(7), w.get(8))), (Ok(1), Ok(0)));
    w.mm.fork(&mut w.thread.cx())
        .expect_err("the last page is promised");
    assert_eq!(w.pool(), (3, 1, 1, 0));
    w.reap(&child);
    w.unmap(0, 2);
    assert_eq!(w.pool(), (3, 2, -1, 0), "the holder keeps the page");
    drop(buffer);
    w.end_with(3);
}

/// `file_mmap_ok` also holds for the file that `MAP_HUGETLB` makes for one mapping.
#[test]
fn no_offset_exceeds_the_greatest_of_a_file() {
    let mut w = pool(2, 0);
    w.map_huge(0, 1);
    for offset in [0u64.wrapping_sub(BYTES), 1 << 63] {
        let args = MmapArgs {
            offset,
            ..huge(0, 1)
        };
        assert_eq!(w.mmap(&args), Err(EOVERFLOW));
    }
    assert_eq!(w.pool(), (2, 2, 1, 0), "the old mapping stays");
    w.end_with(2);
}

/// `hugetlb_cgroup` limits them apart.
#[test]
fn the_limit_of_memory_does_not_count_a_pool() {
    let mut w = pool(3, 2);
    w.map_huge(0, 4);
    let cx = &mut w.thread.cx();
    assert_eq!(w.machine.set_memory_limit(cx, Some(64)), Ok(()));
    w.put(0, 1);
    w.put(3 * HUGE, 1);
    assert_eq!(w.pool(), (4, 2, 2, 1));
    w.map(4 * HUGE, 8, RW);
    w.fill(4 * HUGE, 8);
    w.munmap(4 * HUGE, 8).unwrap();
    w.end_with(3);
}

/// A page of a pool is neither merged nor split.
#[test]
fn a_page_stays_one_of_its_pool() {
    let mut w = pool(3, 0);
    w.map_huge(0, 2);
    w.fill(0, 2);
    let cx = &mut w.thread.cx();
    let pages = [(&*w.mm, at(2)), (&*w.mm, at(3))];
    assert_eq!(w.machine.merge_same_pages(cx, &pages), 0);
    // All of it but the pinned part is given back.
    let pin = w.mm.pin(cx, at(1), 8, Access::Write, PinKind::LongTerm);
    let pin = pin.unwrap();
    w.mm.munmap(cx, at(0), 2 * BYTES).unwrap();
    assert_eq!(w.machine.split_deferred(cx), 0);
    assert_eq!(w.machine.reclaim_all(cx), 0);
    assert_eq!(w.pool(), (3, 2, -1, 0));
    drop(pin);
    assert_eq!(w.pool(), (3, 3, 0, 0));
    w.end_with(3);
}
