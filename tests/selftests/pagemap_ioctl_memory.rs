//! `pagemap_ioctl`: the same questions to memory of each kind, huge pages, categories, threads.

use crate::{
    area::{HUGE, end, world},
    common::{
        PAGE, RW, World, at,
        objects::{disk, shmem},
    },
    pagemap_ioctl::{ALL, CLEAR, WRITTEN, clear, found, scan, track, tracker, written},
};
use emmu::{
    HugeSize,
    file::{File, FileMode, HugetlbFile},
    mm::{
        Advice, MapFlags, MmapArgs, PageCategories, RegisterMode, ScanArgs, ScanFlags,
        UffdFeatures, Userfault,
    },
};
use std::{
    sync::{Arc, Barrier},
    thread,
};

const GET: ScanFlags = ScanFlags::empty();
const NONE: PageCategories = PageCategories::empty();
const PRESENT: PageCategories = PageCategories::PRESENT;

/// `base_tests` on pages `[0, n)`, where a page written makes a unit of pages so.
fn base_tests(mut w: World, n: u64, unit: u64) {
    let uffd = tracker(&w);
    track(&mut w, &uffd, 0, n);
    let few = ScanArgs {
        pages: n - 2,
        ..written(0, n, CLEAR)
    };
    assert_eq!(found(&mut w, few).0, [], "new");
    w.fill(0, n);
    assert_eq!(found(&mut w, written(0, n, GET)).0, [(0, n)]);
    clear(&mut w, 0, n);
    w.fill(unit, n - 2 * unit);
    assert_eq!(found(&mut w, written(0, n, CLEAR)).0, [(unit, n - unit)]);
    assert_eq!(found(&mut w, written(0, n, GET)).0, [], "cleared");
    let middle = n / 2 / unit * unit;
    w.put(middle, 1);
    assert_eq!(
        found(&mut w, written(0, n, GET)).0,
        [(middle, middle + unit)]
    );
    clear(&mut w, 0, n);
    w.put(middle, 1);
    w.put(middle + unit, 1);
    let two = written(middle, middle + 2 * unit, GET);
    assert_eq!(found(&mut w, two).0, [(middle, middle + 2 * unit)]);
    uffd.close(&mut w.thread.cx());
    end(w);
}
fn map_pool(w: &mut World, huge: u64, file: Option<&Arc<File>>) {
    let args = MmapArgs::anonymous(huge * HUGE * PAGE).fixed(at(0));
    let args = match file {
        Some(file) => args.shared().file(file, 0),
        None => args.flags(MapFlags::HUGETLB),
    };
    w.mm.mmap(&mut w.thread.cx(), &args).unwrap();
}

#[test]
fn page_testing() {
    let mut w = world();
    w.map(0, 10, RW);
    base_tests(w, 10, 1);
}

#[test]
fn large_page_testing() {
    let mut w = world();
    w.map(0, 2 * HUGE, RW);
    base_tests(w, 2 * HUGE, 1);
}

/// A store to a protected huge page splits it: it makes one page written.
#[test]
fn huge_page_testing() {
    let mut w = world();
    w.map(0, 4 * HUGE, RW);
    w.advise(0, 4 * HUGE, Advice::HugePage).unwrap();
    w.fill(0, 4 * HUGE);
    base_tests(w, 4 * HUGE, 1);
}

#[test]
fn hugetlb_mem_testing() {
    let mut w = world();
    map_pool(&mut w, 4, None);
    base_tests(w, 4 * HUGE, HUGE);
}

#[test]
fn hugetlb_shmem_testing() {
    let mut w = world();
    let host = w.machine.host();
    let object = HugetlbFile::memfd(host, "h", 4 * HUGE * PAGE, HugeSize::Mib2).unwrap();
    let file = File::open(object, FileMode::ReadWrite);
    map_pool(&mut w, 4, Some(&file));
    drop(file);
    base_tests(w, 4 * HUGE, HUGE);
}

#[test]
fn file_memory_testing() {
    let mut w = world();
    let (object, file) = disk(&mut w, 10);
    drop(object);
    w.map_file(0, 10, &file, 0, MapFlags::PRIVATE);
    drop(file);
    base_tests(w, 10, 1);
}

#[test]
fn shmem_testing() {
    let mut w = world();
    let file = shmem(&mut w, 10);
    w.map_file(0, 10, &file, 0, MapFlags::SHARED);
    drop(file);
    base_tests(w, 10, 1);
}

/// `hpage_unit_tests`: huge pages, written, and tracked or not.
fn huge(n: u64, tracks: bool) -> (World, Userfault) {
    let mut w = world();
    w.map(0, n * HUGE, RW);
    w.advise(0, n * HUGE, Advice::HugePage).unwrap();
    w.fill(0, n * HUGE);
    let uffd = tracker(&w);
    if tracks {
        track(&mut w, &uffd, 0, n * HUGE);
    }
    (w, uffd)
}

/// 1 to 3: huge pages are written as a whole.
#[test]
fn hpage_unit_tests_whole() {
    let (mut w, _uffd) = huge(4, true);
    let n = 4 * HUGE;
    assert_eq!(found(&mut w, written(0, n, CLEAR)).0, []);
    assert_eq!(found(&mut w, written(0, n, GET)).0, []);
    w.fill(0, n);
    assert_eq!(found(&mut w, written(0, n, CLEAR)).0, [(0, n)]);
    assert_eq!(found(&mut w, written(0, n, GET)).0, []);
    end(w);
}

/// 5 and 7: a half of them is cleared.
#[test]
fn hpage_unit_tests_halves() {
    let n = 4 * HUGE;
    for (cleared, left) in [((0, n / 2), (n / 2, n)), ((n / 2, n), (0, n / 2))] {
        let (mut w, _uffd) = huge(4, true);
        w.fill(0, n);
        clear(&mut w, cleared.0, n / 2);
        assert_eq!(found(&mut w, written(0, n, GET)).0, [left]);
        end(w);
    }
}

/// 6 and 8: a limit of pages clears no more than it reports, within a huge page too.
#[test]
fn hpage_unit_tests_limited() {
    let n = 4 * HUGE;
    for limit in [n / 2, HUGE / 2] {
        let (mut w, _uffd) = huge(4, true);
        w.fill(0, n);
        let few = ScanArgs {
            pages: limit,
            ..written(0, n, CLEAR)
        };
        assert_eq!(found(&mut w, few).0, [(0, limit)]);
        assert_eq!(found(&mut w, written(0, n, GET)).0, [(limit, n)]);
        end(w);
    }
}

fn categories(w: &mut World, args: ScanArgs) -> Vec<(u64, u64, PageCategories)> {
    let scan = scan(w, args).unwrap();
    let page = |addr: u64| (addr - at(0)) / PAGE;
    let regions = scan.regions.iter();
    regions
        .map(|r| (page(r.start), page(r.end), r.categories))
        .collect()
}

/// `sanity_tests`, 2 to 8: required, alternative and inverted categories.
#[test]
fn sanity_tests_masks() {
    let mut w = world();
    w.map(0, 10, RW);
    let uffd = tracker(&w);
    track(&mut w, &uffd, 0, 10);
    w.fill(0, 10);
    let seen = WRITTEN | PRESENT;
    let any = ScanArgs {
        mask: NONE,
        any_of: ALL,
        reported: ALL,
        ..written(0, 10, GET)
    };
    let both = ScanArgs {
        any_of: PRESENT,
        reported: ALL,
        ..written(0, 10, GET)
    };
    for args in [any, both] {
        let [(0, 10, kinds)] = categories(&mut w, args)[..] else {
            panic!("all are one region")
        };
        assert!(kinds.contains(seen), "{kinds:?}");
    }
    for mask in [WRITTEN, PRESENT] {
        let not = ScanArgs {
            mask,
            inverted: mask,
            reported: ALL,
            ..written(0, 10, GET)
        };
        assert_eq!(categories(&mut w, not), []);
    }
    let reported = ScanArgs {
        flags: CLEAR,
        reported: WRITTEN,
        ..any
    };
    assert_eq!(categories(&mut w, reported), [(0, 10, WRITTEN)]);
    end(w);
}

/// 9: pages of a file that is mapped for reading.
#[test]
fn sanity_tests_memory_mapped_file() {
    let mut w = world();
    let (object, file) = disk(&mut w, 10);
    w.map_file(0, 10, &file, 0, MapFlags::PRIVATE);
    w.protect(0, 10, crate::common::calls::READ).unwrap();
    (0..10).for_each(|page| assert!(w.get(page).is_ok()));
    let args = ScanArgs {
        mask: NONE,
        any_of: ALL - WRITTEN,
        reported: ALL - WRITTEN,
        ..written(0, 10, GET)
    };
    let [(0, 10, kinds)] = categories(&mut w, args)[..] else {
        panic!("all are one region")
    };
    assert!(kinds.contains(PageCategories::FILE));
    drop((object, file));
    end(w);
}

/// 10: copies of a file's pages are written.
#[test]
fn sanity_tests_read_write_memory_mapped_file() {
    let mut w = world();
    let (object, file) = disk(&mut w, 10);
    w.map_file(0, 10, &file, 0, MapFlags::PRIVATE);
    let uffd = tracker(&w);
    track(&mut w, &uffd, 0, 10);
    w.fill(0, 10);
    let args = ScanArgs {
        any_of: PRESENT | PageCategories::SWAPPED | PageCategories::FILE,
        reported: ALL,
        ..written(0, 10, GET)
    };
    let [(0, 10, kinds)] = categories(&mut w, args)[..] else {
        panic!("all are one region")
    };
    assert!(kinds.contains(WRITTEN));
    drop((object, file));
    end(w);
}

/// `transact_test`: threads write while a scan reads and clears. The two scans after a round find
/// every page that was written in it.
#[test]
fn transact_test() {
    const THREADS: u64 = 4;
    const EACH: u64 = 8;
    const ROUNDS: usize = 50;
    let mut w = world();
    w.map(0, THREADS * 32, RW);
    let uffd = w.userfaultfd(UffdFeatures::WP_ASYNC);
    w.register(&uffd, 0, THREADS * 32, RegisterMode::WP);
    clear(&mut w, 0, THREADS * 32);
    let barrier = Arc::new(Barrier::new(THREADS as usize + 1));
    let threads: Vec<_> = (0..THREADS)
        .map(|nth| {
            let (barrier, machine, mm) = (barrier.clone(), w.machine.clone(), w.mm.clone());
            thread::spawn(move || {
                let mut thread = machine.enter().unwrap();
                for round in 0..ROUNDS {
                    barrier.wait();
                    for page in 0..EACH {
                        let addr = at(32 * nth + page);
                        mm.store(&mut thread.cx(), addr, round as u8).unwrap();
                    }
                    barrier.wait();
                }
            })
        })
        .collect();
    let count = |w: &mut World| {
        let regions = found(w, written(0, THREADS * 32, CLEAR)).0;
        regions.iter().map(|(from, to)| to - from).sum::<u64>()
    };
    for _ in 0..ROUNDS {
        barrier.wait();
        let early = count(&mut w);
        barrier.wait();
        let late = count(&mut w);
        assert!(early <= THREADS * EACH && late <= THREADS * EACH);
        assert!(early + late >= THREADS * EACH, "lost: {early} and {late}");
    }
    threads.into_iter().for_each(|t| t.join().unwrap());
    end(w);
}
