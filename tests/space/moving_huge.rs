//! A part of a huge page changes while the page moves: small pages arrive. Linux splits the mark of
//! a huge page before a part of it changes.

use crate::common::{World, at, moving::Comes};
use emmu::{
    FaultError,
    mm::{
        Advice, PageCategories, PageRegion, Prot, ProtectMode, RegisterMode, ScanArgs, ScanFlags,
        UffdFeatures, Userfault,
    },
};

const HUGE: u64 = 512;

/// A huge page that was written, registered for write protection.
fn world(features: UffdFeatures) -> (World, Userfault) {
    let mut w = World::new();
    w.map(HUGE, HUGE, Prot::READ | Prot::WRITE);
    w.advise(HUGE, HUGE, Advice::HugePage).unwrap();
    w.put(HUGE, 1);
    let uffd = w.userfaultfd(features);
    w.register(&uffd, HUGE, HUGE, RegisterMode::WP);
    (w, uffd)
}

/// `change_huge_pmd`: the other pages stay protected when one without the mark is written.
#[test]
fn a_part_that_loses_its_protection_on_the_way_takes_none_from_the_others() {
    let (mut w, uffd) = world(UffdFeatures::empty());
    w.write_protect(&uffd, HUGE, HUGE, ProtectMode::WP);
    w.while_moving(HUGE + 8, Comes::Through, |w| {
        w.write_protect(&uffd, HUGE, 100, ProtectMode::empty());
    });
    w.put(HUGE + 8, 2);
    let beside = HUGE + 300;
    let store = w.mm.store(&mut w.thread.cx(), at(beside), 2);
    assert_eq!(store, Err(FaultError::Userfault(at(beside))));
    w.end();
}

/// `pagemap_scan_thp_entry`: the pages that a scan did not protect are reported by the next one.
#[test]
fn a_scan_of_a_part_on_the_way_leaves_the_others_written() {
    let (mut w, _uffd) = world(UffdFeatures::WP_ASYNC | UffdFeatures::WP_UNPOPULATED);
    let written = PageCategories::WRITTEN;
    let scan = |from: u64, flags| ScanArgs {
        start: at(from),
        end: at(2 * HUGE),
        flags,
        regions: 8,
        pages: 100,
        inverted: PageCategories::empty(),
        mask: written,
        any_of: PageCategories::empty(),
        reported: written,
    };
    let region = |from: u64, to: u64| PageRegion {
        start: at(from),
        end: at(to),
        categories: written,
    };
    // No mark says that its page could be written.
    w.protect(HUGE, HUGE, Prot::READ).unwrap();
    w.while_moving(HUGE + 8, Comes::Through, |w| {
        let protects = scan(HUGE, ScanFlags::WP_MATCHING);
        let first = w.mm.pagemap_scan(&mut w.thread.cx(), &protects).unwrap();
        assert_eq!(first.regions, [region(HUGE, HUGE + 100)]);
    });
    let rest = ScanArgs {
        pages: 0,
        ..scan(HUGE, ScanFlags::empty())
    };
    let second = w.mm.pagemap_scan(&mut w.thread.cx(), &rest).unwrap();
    assert_eq!(second.regions, [region(HUGE + 100, 2 * HUGE)]);
    assert_eq!(second.end, at(2 * HUGE));
    w.end();
}
