//! `uffd-wp-mremap`: without its event, a move takes protection off every page.

use crate::{
    area::{HUGE, end, world},
    common::{PAGE, RW, World, at, calls::FIXED},
};
use emmu::mm::{Advice, MapFlags, MmapArgs, PageState, ProtectMode, RegisterMode, UffdFeatures};

fn protected(w: &mut World, from: u64, n: u64) -> usize {
    let range = World::pages(from, from + n);
    w.mm.protected_pages(&mut w.thread.cx(), range).len()
}

fn one_folio(n: u64, private: bool, out: bool, hugetlb: bool) {
    let mut w = world();
    let kind = if private {
        MapFlags::PRIVATE
    } else {
        MapFlags::SHARED
    };
    let pool = if hugetlb {
        MapFlags::HUGETLB
    } else {
        MapFlags::empty()
    };
    let mut args = MmapArgs::anonymous(n * PAGE).fixed(at(0)).prot(RW);
    args.flags = MapFlags::ANONYMOUS | MapFlags::FIXED | kind | pool;
    w.mm.mmap(&mut w.thread.cx(), &args).unwrap();
    if n > 1 && !hugetlb {
        w.advise(0, n, Advice::HugePage).unwrap();
    }
    w.fill(0, n);
    if n > 1 && !hugetlb && !private {
        w.advise(0, n, Advice::Collapse).unwrap();
    }
    let uffd = w.userfaultfd(UffdFeatures::WP_HUGETLBFS_SHMEM);
    w.register(&uffd, 0, n, RegisterMode::WP);
    w.write_protect(&uffd, 0, n, ProtectMode::WP);
    if out {
        w.advise(0, n, Advice::PageOut).unwrap();
        let states = w.mm.pagemap(&mut w.thread.cx(), World::pages(0, n));
        let present = |(_, state): &(_, PageState)| {
            matches!(state, PageState::Anon(_) | PageState::Object(_))
        };
        assert!(!states.iter().any(present), "{n} {private}");
    }
    let what = format!("{n} pages, private {private}, out {out}, pool {hugetlb}");
    assert_eq!(protected(&mut w, 0, n) as u64, n, "{what}");
    w.remap(0, n, n, FIXED, 4 * HUGE);
    assert_eq!(protected(&mut w, 4 * HUGE, n), 0, "{what}");
    w.put(4 * HUGE, 2);
    uffd.close(&mut w.thread.cx());
    end(w);
}

#[test]
fn base_pages() {
    for private in [false, true] {
        for out in [false, true] {
            one_folio(1, private, out, false);
        }
    }
}

#[test]
fn thp() {
    for private in [false, true] {
        for out in [false, true] {
            one_folio(HUGE, private, out, false);
        }
    }
}

#[test]
fn hugetlb() {
    for private in [false, true] {
        one_folio(HUGE, private, false, true);
    }
}
