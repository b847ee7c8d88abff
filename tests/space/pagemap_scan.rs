//! `PAGEMAP_SCAN` and `clear_refs`: the kernel's own cases, limits, and what devices write.

use crate::common::{BASE, PAGE, RW, World, at, driver::Driver};
use emmu::{
    error::{ClearRefsError, ScanError},
    mm::{
        Advice, PageCategories, RegisterMode, Scan, ScanArgs, ScanFlags, UffdFeatures, Userfault,
    },
    notifier::Access,
};

const WRITTEN: PageCategories = PageCategories::WRITTEN;

fn args(from: u64, to: u64) -> ScanArgs {
    ScanArgs {
        start: at(from),
        end: at(to),
        flags: ScanFlags::WP_MATCHING | ScanFlags::CHECK_WPASYNC,
        regions: 64,
        pages: 0,
        inverted: PageCategories::empty(),
        mask: WRITTEN,
        any_of: PageCategories::empty(),
        reported: WRITTEN,
    }
}
fn scan(w: &mut World, args: &ScanArgs) -> Result<Scan, ScanError> {
    w.mm.pagemap_scan(&mut w.thread.cx(), args)
}
/// The reported stretches of pages, and the page at which the scan ended.
fn found(scan: &Scan) -> (Vec<(u64, u64)>, u64) {
    let page = |addr: u64| (addr - BASE) / PAGE;
    let regions = scan.regions.iter();
    let regions = regions.map(|r| (page(r.start), page(r.end))).collect();
    (regions, page(scan.end))
}
/// A world of `n` pages whose writes are tracked, and that were all seen by a scan.
fn tracked(n: u64) -> (World, Userfault) {
    let mut w = World::new();
    w.map(0, n, RW);
    let uffd = w.userfaultfd(UffdFeatures::WP_ASYNC);
    w.register(&uffd, 0, n, RegisterMode::WP);
    let all = scan(&mut w, &args(0, n)).unwrap();
    assert_eq!(found(&all), (vec![(0, n)], n));
    (w, uffd)
}

/// After a scan nothing is written; then exactly what is written is found, and found once.
#[test]
fn a_write_is_reported_once() {
    let (mut w, _uffd) = tracked(32);
    assert_eq!(found(&scan(&mut w, &args(0, 32)).unwrap()), (vec![], 32));
    for page in [0, 5, 6, 31] {
        w.put(page, 1);
    }
    let expected = vec![(0, 1), (5, 7), (31, 32)];
    assert_eq!(found(&scan(&mut w, &args(0, 32)).unwrap()), (expected, 32));
    assert_eq!(found(&scan(&mut w, &args(0, 32)).unwrap()), (vec![], 32));
    w.end();
}

/// A limit of pages or of regions ends the scan at the first page that it does not report; later
/// pages stay as they were.
#[test]
fn limits_end_a_scan_at_the_right_page() {
    let (mut w, _uffd) = tracked(16);
    (0..16).step_by(2).for_each(|page| w.put(page, 1));
    let few = ScanArgs {
        regions: 2,
        ..args(0, 16)
    };
    assert_eq!(
        found(&scan(&mut w, &few).unwrap()),
        (vec![(0, 1), (2, 3)], 4)
    );
    let few = ScanArgs {
        pages: 3,
        ..args(3, 16)
    };
    let expected = (vec![(4, 5), (6, 7), (8, 9)], 10);
    assert_eq!(found(&scan(&mut w, &few).unwrap()), expected);
    let rest = vec![(10, 11), (12, 13), (14, 15)];
    assert_eq!(found(&scan(&mut w, &args(0, 16)).unwrap()).0, rest);
    w.end();
}

/// With nothing to report, a scan only protects.
#[test]
fn a_scan_without_regions_protects() {
    let (mut w, _uffd) = tracked(4);
    w.put(1, 1);
    let blind = ScanArgs {
        regions: 0,
        ..args(0, 4)
    };
    assert_eq!(found(&scan(&mut w, &blind).unwrap()), (vec![], 4));
    assert_eq!(found(&scan(&mut w, &args(0, 4)).unwrap()), (vec![], 4));
    w.end();
}

/// What a device writes is written: the window of the scan takes its translations, and it must
/// fault again.
#[test]
fn a_device_that_writes_is_found() {
    let (mut w, _uffd) = tracked(2);
    w.put(0, 1);
    w.put(1, 1);
    let (driver, registration) = w.mm.register(&mut w.thread.cx(), Driver::new);
    let write = |w: &mut World, page: u64| {
        let cx = &mut w.thread.cx();
        let ticket = driver
            .gate
            .ticket(emmu::addr::Vpn::containing(at(page)), Access::Write);
        let pending = w.mm.resolve(cx, ticket).unwrap();
        let permit = pending.admit(cx).unwrap();
        drop(permit.establish(at(page)));
    };
    write(&mut w, 0);
    assert_eq!(found(&scan(&mut w, &args(0, 2)).unwrap()).0, [(0, 2)]);
    let cx = &mut w.thread.cx();
    assert!(
        driver.gate.lock(cx).lookup(&at(0)).is_none(),
        "it lost its translation"
    );
    write(&mut w, 0);
    assert_eq!(found(&scan(&mut w, &args(0, 2)).unwrap()).0, [(0, 1)]);
    w.mm.unregister(&mut w.thread.cx(), registration);
    w.end();
}

/// A part of a huge page is protected alone: the huge page is split.
#[test]
fn a_part_of_a_huge_page_is_split() {
    let mut w = World::new();
    w.map(0, 512, RW);
    w.advise(0, 512, Advice::HugePage).unwrap();
    w.put(0, 1);
    let uffd = w.userfaultfd(UffdFeatures::WP_ASYNC);
    w.register(&uffd, 0, 512, RegisterMode::WP);
    let huge = ScanArgs {
        reported: PageCategories::HUGE,
        ..args(0, 512)
    };
    let kinds = |scan: Scan| {
        scan.regions
            .iter()
            .map(|r| r.categories)
            .collect::<Vec<_>>()
    };
    let only_look = ScanArgs {
        flags: ScanFlags::empty(),
        ..huge
    };
    assert_eq!(
        kinds(scan(&mut w, &only_look).unwrap()),
        [PageCategories::HUGE]
    );
    w.told();
    let part = ScanArgs { end: at(7), ..huge };
    assert_eq!(
        kinds(scan(&mut w, &part).unwrap()),
        [PageCategories::empty()]
    );
    assert_eq!(w.told(), "W0..7 W0..512");
    assert_eq!(found(&scan(&mut w, &args(0, 512)).unwrap()).0, [(7, 512)]);
    w.end();
}

/// `pagemap_scan_get_args`.
#[test]
fn arguments() {
    let mut w = World::new();
    w.map(0, 2, RW);
    let good = args(0, 2);
    let refused = |w: &mut World, args: ScanArgs| scan(w, &args).unwrap_err();
    let flags = ScanFlags::from_bits_retain(8);
    assert_eq!(
        refused(&mut w, ScanArgs { flags, ..good }),
        ScanError::Flags(8)
    );
    let any_of = PageCategories::from_bits_retain(1 << 9);
    assert_eq!(
        refused(&mut w, ScanArgs { any_of, ..good }),
        ScanError::Categories(WRITTEN.bits() | 1 << 9)
    );
    let start = at(0) + 1;
    assert_eq!(
        refused(&mut w, ScanArgs { start, ..good }),
        ScanError::Unaligned(start)
    );
    let end = 1 << 48;
    let range = ScanError::Range { start: at(0), end };
    assert_eq!(refused(&mut w, ScanArgs { end, ..good }), range);
    assert_eq!(refused(&mut w, good), ScanError::NotTracked(at(0)));
    for number in [0, 6, -1] {
        let cleared = w.mm.clear_refs(&mut w.thread.cx(), number);
        assert_eq!(cleared, Err(ClearRefsError(number)));
    }
    w.end();
}

/// 1 to 3 clear the accessed state of entries, of all memory or of one kind.
#[test]
fn clear_refs_clears_the_kind_that_it_names() {
    use emmu::notifier::AgeKind;
    let mut w = World::new();
    let young = |w: &mut World, page: u64| {
        let pages = World::pages(page, page + 1);
        w.mm.age(&mut w.thread.cx(), pages, AgeKind::Test)
    };
    for (number, left) in [(1, [false, false]), (2, [false, true]), (3, [true, false])] {
        w.map(0, 1, RW);
        w.share(2, 1);
        w.put(0, 1);
        w.put(2, 1);
        w.mm.clear_refs(&mut w.thread.cx(), number).unwrap();
        assert_eq!([young(&mut w, 0), young(&mut w, 2)], left, "{number}");
    }
    w.end();
}
