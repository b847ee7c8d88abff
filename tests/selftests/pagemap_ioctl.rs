//! `pagemap_ioctl`: arguments, the pages that a scan reports, and the byte at which it ends.

use crate::common::{PAGE, RW, World, at};
use emmu::{
    error::ScanError,
    mm::{
        PageCategories, ProtectMode, RegisterMode, Scan, ScanArgs, ScanFlags, UffdFeatures,
        Userfault,
    },
};

pub(crate) const WRITTEN: PageCategories = PageCategories::WRITTEN;
pub(crate) const ALL: PageCategories = PageCategories::WPALLOWED
    .union(WRITTEN)
    .union(PageCategories::FILE)
    .union(PageCategories::PRESENT)
    .union(PageCategories::SWAPPED)
    .union(PageCategories::PFNZERO)
    .union(PageCategories::HUGE);
const NONE: PageCategories = PageCategories::empty();
const GET: ScanFlags = ScanFlags::empty();
pub(crate) const CLEAR: ScanFlags = ScanFlags::WP_MATCHING.union(ScanFlags::CHECK_WPASYNC);

/// A scan of pages `[from, to)` for those that were written.
pub(crate) fn written(from: u64, to: u64, flags: ScanFlags) -> ScanArgs {
    ScanArgs {
        start: at(from),
        end: at(to),
        flags,
        regions: 4096,
        pages: 0,
        inverted: NONE,
        mask: WRITTEN,
        any_of: NONE,
        reported: WRITTEN,
    }
}
pub(crate) fn scan(w: &mut World, args: ScanArgs) -> Result<Scan, ScanError> {
    w.mm.pagemap_scan(&mut w.thread.cx(), &args)
}
/// The reported stretches of pages, and the page at which the scan ended.
pub(crate) fn found(w: &mut World, args: ScanArgs) -> (Vec<(u64, u64)>, u64) {
    let page = |addr: u64| (addr - at(0)) / PAGE;
    let scan = scan(w, args).unwrap();
    let regions = scan.regions.iter();
    let regions = regions.map(|r| (page(r.start), page(r.end))).collect();
    (regions, page(scan.end))
}
pub(crate) fn tracker(w: &World) -> Userfault {
    w.userfaultfd(
        UffdFeatures::WP_UNPOPULATED | UffdFeatures::WP_ASYNC | UffdFeatures::WP_HUGETLBFS_SHMEM,
    )
}
/// `wp_init`, `wp_addr_range`: registers pages, protects them, and clears what was written.
pub(crate) fn track(w: &mut World, uffd: &Userfault, from: u64, n: u64) {
    w.register(uffd, from, n, RegisterMode::WP);
    w.write_protect(uffd, from, n, ProtectMode::WP);
    clear(w, from, n);
}
pub(crate) fn clear(w: &mut World, from: u64, n: u64) {
    let args = ScanArgs {
        regions: 0,
        ..written(from, from + n, CLEAR)
    };
    scan(w, args).unwrap();
}
/// A world of private pages whose writes are tracked.
fn tracked(n: u64) -> (World, Userfault) {
    let mut w = World::new();
    w.map(0, n, RW);
    let uffd = tracker(&w);
    track(&mut w, &uffd, 0, n);
    (w, uffd)
}
fn write_even(w: &mut World, n: u64) {
    (0..n).step_by(2).for_each(|page| w.put(page, 1));
}
/// The pages of all stretches together.
pub(crate) fn pages(regions: &[(u64, u64)]) -> u64 {
    regions.iter().map(|(from, to)| to - from).sum()
}

/// `userfaultfd_tests`: pages of any rights are not written when they are new.
#[test]
fn userfaultfd_tests() {
    let mut w = World::new();
    w.map(0, 16, crate::common::calls::NONE);
    let uffd = tracker(&w);
    w.register(&uffd, 0, 16, RegisterMode::WP);
    w.write_protect(&uffd, 0, 16, ProtectMode::WP);
    let (read, none) = (crate::common::calls::READ, crate::common::calls::NONE);
    for (eighth, prot) in (0..).zip([RW, read, RW, read, RW, none, RW, read]) {
        w.protect(2 * eighth, 2, prot).unwrap();
    }
    clear(&mut w, 1, 12);
    clear(&mut w, 0, 16);
    assert_eq!(found(&mut w, written(0, 16, CLEAR)).0, []);
    uffd.close(&mut w.thread.cx());
    w.end();
}

/// `sanity_tests_sd`, 1: what a scan takes and what it refuses.
#[test]
fn sanity_tests_sd_wrong_operation() {
    let (mut w, _uffd) = tracked(1000);
    let all = ScanArgs {
        mask: ALL,
        reported: ALL,
        ..written(0, 1000, GET)
    };
    assert_eq!(found(&mut w, ScanArgs { end: at(0), ..all }).0, []);
    assert_eq!(found(&mut w, ScanArgs { regions: 0, ..all }).0, []);
    let good = written(0, 1000, GET);
    let refused = [
        ScanArgs {
            flags: ScanFlags::from_bits_retain(u64::MAX),
            ..good
        },
        ScanArgs {
            flags: CLEAR | ScanFlags::from_bits_retain(0xff),
            ..good
        },
        ScanArgs {
            reported: PageCategories::from_bits_retain(0x1000),
            ..good
        },
        ScanArgs {
            mask: PageCategories::from_bits_retain(0xfff),
            any_of: WRITTEN,
            ..good
        },
    ];
    for args in refused {
        assert!(scan(&mut w, args).is_err(), "{args:?}");
    }
    assert!(scan(&mut w, ScanArgs { mask: NONE, ..good }).is_ok());
    let unnamed = ScanArgs {
        any_of: WRITTEN,
        reported: NONE,
        ..good
    };
    assert_eq!(found(&mut w, unnamed).0, []);
    let inverted = ScanArgs {
        flags: CLEAR,
        mask: NONE,
        inverted: ALL,
        ..good
    };
    assert!(scan(&mut w, inverted).is_ok());
    w.end();
}

/// 2 to 5: a pattern of every other page, as a whole, in parts and up to a number of pages.
#[test]
fn sanity_tests_sd_repeated_pattern() {
    let (mut w, _uffd) = tracked(1000);
    write_even(&mut w, 1000);
    assert_eq!(found(&mut w, written(0, 1000, GET)).0.len(), 500);
    let part = ScanArgs {
        pages: 498,
        ..written(0, 1000, CLEAR)
    };
    assert_eq!(found(&mut w, part).0.len(), 498);
    let two = ScanArgs {
        regions: 2,
        ..written(0, 1000, GET)
    };
    assert_eq!(found(&mut w, two).0.len(), 2);
    assert_eq!(found(&mut w, written(0, 1000, CLEAR)).0.len(), 2);
    write_even(&mut w, 1000);
    w.put(999, 1);
    let half = ScanArgs {
        pages: 500,
        ..written(0, 1000, CLEAR)
    };
    assert_eq!(found(&mut w, half).0.len(), 500);
    assert_eq!(found(&mut w, written(0, 1000, CLEAR)).0, [(999, 1000)]);
    w.end();
}

/// 6: two pages are read and cleared, and the others stay written.
#[test]
fn sanity_tests_sd_two_pages() {
    let (mut w, _uffd) = tracked(1000);
    w.fill(0, 1000);
    let two = ScanArgs {
        regions: 1,
        pages: 2,
        ..written(1, 3, CLEAR)
    };
    assert_eq!(found(&mut w, two).0, [(1, 3)]);
    assert_eq!(found(&mut w, written(0, 1000, GET)).0, [(0, 1), (3, 1000)]);
    w.end();
}

/// 7: a scan of one region leaves the other.
#[test]
fn sanity_tests_sd_two_regions() {
    let mut w = World::new();
    let uffd = tracker(&w);
    for first in [0, 1000] {
        w.map(first, 500, RW);
        track(&mut w, &uffd, first, 500);
    }
    w.fill(0, 500);
    w.fill(1000, 500);
    clear(&mut w, 0, 500);
    let second = ScanArgs {
        regions: 1,
        ..written(1000, 1500, GET)
    };
    assert_eq!(found(&mut w, second).0, [(1000, 1500)]);
    w.end();
}

/// 8: fewer pages at a time.
#[test]
fn sanity_tests_sd_smaller_max_pages() {
    let (mut w, _uffd) = tracked(1050);
    write_even(&mut w, 1050);
    let few = ScanArgs {
        pages: 210,
        ..written(0, 1050, CLEAR)
    };
    let total: usize = (0..3).map(|_| found(&mut w, few).0.len()).sum();
    assert_eq!(total, 525);
    w.end();
}

/// 9: with few regions at a time, scans that go on where the last one ended find every page once.
#[test]
fn sanity_tests_sd_smaller_vec() {
    let (mut w, _uffd) = tracked(2000);
    let mut seed = 7_u64;
    for _ in 0..4 {
        let mut writes = 0;
        for page in 0..2000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            if seed >> 63 == 1 {
                w.put(page, 1);
                writes += 1;
            }
        }
        let (mut reads, mut from) = (0, 0);
        while from < 2000 {
            let few = ScanArgs {
                regions: 50,
                ..written(from, 2000, CLEAR)
            };
            let (regions, end) = found(&mut w, few);
            assert!(end > from);
            reads += pages(&regions);
            from = end;
        }
        assert_eq!(reads, writes);
    }
    w.end();
}

/// 10: the end of the walk.
#[test]
fn sanity_tests_sd_walk_end() {
    let (mut w, _uffd) = tracked(1000);
    w.fill(0, 1000);
    let walk = |w: &mut World, to, flags, regions, pages| {
        let args = ScanArgs {
            regions,
            pages,
            ..written(0, to, flags)
        };
        let (found, end) = found(w, args);
        (found.len(), end)
    };
    assert_eq!(walk(&mut w, 0, GET, 1000, 0), (0, 0));
    assert_eq!(walk(&mut w, 0, CLEAR, 1000, 0), (0, 0));
    assert_eq!(walk(&mut w, 0, CLEAR, 0, 0), (0, 0));
    for (regions, pages, end) in [
        (1000, 0, 1000),
        (1, 0, 1000),
        (1, 1000, 1000),
        (1000, 500, 500),
        (1000, 1, 1),
        (1000, u64::MAX, 1000),
    ] {
        assert_eq!(walk(&mut w, 1000, GET, regions, pages), (1, end));
    }
    clear(&mut w, 0, 1000);
    write_even(&mut w, 1000);
    for (regions, pages, many, end) in [
        (1000, 0, 500, 1000),
        (1, 0, 1, 2),
        (1, 1000, 1, 2),
        (500, 1000, 500, 1000),
        (1000, 1000, 500, 1000),
        (1000, 500, 500, 1000),
        (1000, 1, 1, 2),
    ] {
        let walked = walk(&mut w, 1000, GET, regions, pages);
        assert_eq!(walked, (many, end), "{regions} regions, {pages} pages");
    }
    w.end();
}

/// `test_simple`.
#[test]
fn test_simple() {
    let (mut w, _uffd) = tracked(1);
    for byte in 1..100 {
        assert_eq!(found(&mut w, written(0, 1, GET)).0, []);
        w.put(0, byte);
        assert_eq!(found(&mut w, written(0, 1, GET)).0, [(0, 1)]);
        clear(&mut w, 0, 1);
    }
    w.end();
}

/// `unmapped_region_tests`: nothing is mapped, and nothing is found.
#[test]
fn unmapped_region_tests() {
    let mut w = World::new();
    let args = ScanArgs {
        mask: ALL - WRITTEN,
        reported: ALL - WRITTEN,
        ..written(0, 64, GET)
    };
    assert_eq!(found(&mut w, args), (vec![], 64));
    w.end();
}

/// `mprotect_tests`: a mapping in the middle, and changes of rights, keep what was written.
#[test]
fn mprotect_tests() {
    let mut w = World::new();
    w.map(0, 2, RW);
    let uffd = tracker(&w);
    track(&mut w, &uffd, 0, 2);
    w.fill(0, 2);
    assert_eq!(found(&mut w, written(0, 2, GET)).0, [(0, 2)]);
    clear(&mut w, 0, 2);
    assert_eq!(found(&mut w, written(0, 2, GET)).0, []);
    w.map(1, 1, RW);
    track(&mut w, &uffd, 1, 1);
    let (none, read) = (crate::common::calls::NONE, crate::common::calls::READ);
    w.protect(0, 1, none).unwrap();
    w.protect(0, 2, read).unwrap();
    w.protect(0, 2, RW).unwrap();
    w.fill(0, 2);
    for prot in [none, read, RW] {
        w.protect(0, 1, prot).unwrap();
    }
    assert_eq!(found(&mut w, written(0, 2, GET)).0, [(0, 2)]);
    clear(&mut w, 0, 2);
    w.fill(0, 2);
    assert_eq!(found(&mut w, written(0, 2, GET)).0, [(0, 2)]);
    w.end();
}
