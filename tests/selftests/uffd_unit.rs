//! `uffd-unit-tests`, each case on every kind of memory that it names: registration, pages that are
//! filled, moved, poisoned, mapped from the object, and signals in place of messages.

use crate::{
    area::{ALIAS, Area, HUGE, Kind, UNITS, end, world},
    common::{PAGE, RW, World, at},
    pagemap_ioctl::{found, pages, written},
};
use emmu::{
    FaultError,
    error::Errno::{EEXIST, EINVAL},
    mm::{
        Advice, FillMode, MoveMode, PageCategories, PageFaultFlags, RegisterMode, ScanArgs,
        ScanFlags, UffdFeatures, Userfault,
    },
};

const NONE: FillMode = FillMode::empty();
const MISSING: RegisterMode = RegisterMode::MISSING;
const WP: RegisterMode = RegisterMode::WP;
const MINOR: RegisterMode = RegisterMode::MINOR;
/// A mode of registration that protects can be had for all kinds.
const ALL_WP: UffdFeatures = UffdFeatures::WP_HUGETLBFS_SHMEM;

/// Each combination of modes registers, but for none, and for minor faults of private memory
/// without an object.
#[test]
fn register_ioctls() {
    let features = ALL_WP | UffdFeatures::MINOR_HUGETLBFS | UffdFeatures::MINOR_SHMEM;
    for kind in Kind::all() {
        for bits in 0..8 {
            let mut area = Area::new(kind, features);
            let mode = RegisterMode::from_bits_retain(bits);
            let (addr, len) = (area.addr(0), area.len());
            let cx = &mut area.w.thread.cx();
            let registered = area.uffd.register(cx, addr, len, mode);
            let refused = mode.is_empty() || mode.contains(MINOR) && kind == Kind::Anon;
            let expected = if refused { Err(EINVAL) } else { Ok(()) };
            let registered = registered.map_err(|e| e.errno());
            assert_eq!(registered, expected, "{kind:?} {mode:?}");
            if !refused {
                area.uffd.unregister(cx, addr, len).unwrap();
            }
            area.end();
        }
    }
}

/// A page of zeros comes once; huge pages of a pool have none.
#[test]
fn zeropage() {
    for kind in Kind::all() {
        let mut area = Area::registered(kind, UffdFeatures::empty(), MISSING);
        let (addr, len) = (area.addr(0), area.len());
        let zeros = |area: &mut Area| {
            let done = area.uffd.zeropage(&mut area.w.thread.cx(), addr, len, NONE);
            done.map_err(|e| e.errno())
        };
        if kind.is_hugetlb() {
            assert_eq!(zeros(&mut area), Err(EINVAL), "{kind:?}");
        } else {
            assert_eq!(zeros(&mut area), Ok(len), "{kind:?}");
            assert_eq!(zeros(&mut area), Err(EEXIST), "{kind:?}");
            assert_eq!(area.load(0), Ok(0));
        }
        area.end();
    }
}

/// Every other page is poison and the others have data.
#[test]
fn poison() {
    for kind in Kind::all() {
        let mut area = Area::registered(kind, UffdFeatures::POISON, MISSING);
        let uffd = area.uffd.clone();
        for unit in 0..UNITS {
            let addr = area.addr(unit);
            assert_eq!(area.load(unit), Err(FaultError::Userfault(addr)));
            let fault = area.fault(&uffd);
            assert_eq!((fault.addr, fault.flags), (addr, PageFaultFlags::empty()));
            if unit % 2 == 1 {
                area.copy(&uffd, unit, 0, NONE);
                assert_eq!(area.load(unit), Ok(0));
                continue;
            }
            let len = area.len();
            let done = uffd.poison(&mut area.w.thread.cx(), addr, len, NONE);
            assert_eq!(done, Ok(len), "{kind:?}");
            assert_eq!(area.load(unit), Err(FaultError::Poisoned(addr)), "{kind:?}");
        }
        area.end();
    }
}

/// The first access to a page that the object has is a minor fault; its answer maps the page with
/// the bytes that it has by then.
fn minor_on(kind: Kind, wp: bool) -> Area {
    let features = UffdFeatures::MINOR_HUGETLBFS | UffdFeatures::MINOR_SHMEM | ALL_WP;
    let mode = if wp { MINOR | WP } else { MINOR };
    let mut area = Area::new(kind, features);
    area.register(ALIAS, mode);
    let uffd = area.uffd.clone();
    for unit in 0..UNITS {
        area.store(unit, 1).unwrap();
    }
    assert!(!uffd.has_message(), "{kind:?}: of another mapping");
    for unit in 0..UNITS {
        let addr = area.addr(ALIAS + unit);
        assert_eq!(area.load(ALIAS + unit), Err(FaultError::Userfault(addr)));
        assert_eq!(area.fault(&uffd).flags, PageFaultFlags::MINOR, "{kind:?}");
        area.store(unit, 2).unwrap();
        let mode = if wp { FillMode::WP } else { NONE };
        let len = area.len();
        let done = uffd.map_present(&mut area.w.thread.cx(), addr, len, mode);
        assert_eq!(done, Ok(len), "{kind:?}");
        assert_eq!(area.load(ALIAS + unit), Ok(2), "{kind:?}");
        assert_eq!(area.is_protected(ALIAS + unit), wp, "{kind:?}");
        if wp {
            let stored = area.store(ALIAS + unit, 3);
            assert_eq!(stored, Err(FaultError::Userfault(addr)), "{kind:?}");
            let flags = PageFaultFlags::WP | PageFaultFlags::WRITE;
            assert_eq!(area.fault(&uffd).flags, flags);
            area.protect(&uffd, ALIAS + unit, false);
        }
        assert_eq!(area.store(ALIAS + unit, 3), Ok(()), "{kind:?}");
        assert_eq!(area.load(unit), Ok(3), "one object");
    }
    area
}

#[test]
fn minor() {
    Kind::shared().for_each(|kind| minor_on(kind, false).end());
}

#[test]
fn minor_wp() {
    Kind::shared().for_each(|kind| minor_on(kind, true).end());
}

/// A collapse of memory with minor faults keeps its bytes.
#[test]
fn minor_collapse() {
    let mut w = world();
    let file = crate::common::objects::shmem(&mut w, HUGE);
    let shared = emmu::mm::MapFlags::SHARED;
    w.map_file(0, HUGE, &file, 0, shared);
    w.map_file(HUGE, HUGE, &file, 0, shared);
    let uffd = w.userfaultfd(UffdFeatures::MINOR_SHMEM);
    w.register(&uffd, 0, HUGE, MINOR);
    for page in 0..HUGE {
        w.put(HUGE + page, 255 - (page % 250) as u8);
        assert_eq!(w.get(page), Err(FaultError::Userfault(at(page))));
        let cx = &mut w.thread.cx();
        assert_eq!(uffd.map_present(cx, at(page), PAGE, NONE), Ok(PAGE));
    }
    let collapsed = w.advise(0, HUGE, Advice::Collapse);
    assert_eq!(collapsed, Ok(()));
    for page in 0..HUGE {
        assert_eq!(w.get(page), Ok(255 - (page % 250) as u8), "page {page}");
    }
    drop(file);
    end(w);
}

/// An access raises SIGBUS, before a page is there and while it is protected, and no message is
/// sent, nor for a child.
fn sigbus_on(kind: Kind, wp: bool) {
    let features = UffdFeatures::SIGBUS | UffdFeatures::EVENT_FORK | ALL_WP;
    let mode = if wp { MISSING | WP } else { MISSING };
    let mut area = Area::registered(kind, features, mode);
    let uffd = area.uffd.clone();
    for unit in 0..UNITS {
        let addr = area.addr(unit);
        assert_eq!(
            area.load(unit),
            Err(FaultError::Unhandled(addr)),
            "{kind:?}"
        );
        area.copy(&uffd, unit, 9, if wp { FillMode::WP } else { NONE });
        assert_eq!(area.load(unit), Ok(9));
        if wp {
            let stored = area.store(unit, 9);
            assert_eq!(stored, Err(FaultError::Unhandled(addr)), "{kind:?}");
            area.protect(&uffd, unit, false);
        }
        assert_eq!(area.store(unit, 9), Ok(()));
    }
    release(&mut area, 0);
    assert!(!uffd.has_message());
    area.in_child(|area| {
        let _of_child = area.forked();
        for unit in 0..UNITS {
            let addr = area.addr(unit);
            assert_eq!(
                area.load(unit),
                Err(FaultError::Unhandled(addr)),
                "{kind:?}"
            );
        }
    });
    assert!(!uffd.has_message());
    area.end();
}

/// `release_pages`: gives all pages from a unit on up, those of a shared object too.
pub(crate) fn release(area: &mut Area, first: u64) {
    let advice = match area.kind.is_shared() {
        true => Advice::Remove,
        false => Advice::DontNeed,
    };
    assert!(area.advise(first, UNITS, advice), "{:?}", area.kind);
}

#[test]
fn sigbus() {
    Kind::all().for_each(|kind| sigbus_on(kind, false));
}

#[test]
fn sigbus_wp() {
    Kind::all().for_each(|kind| sigbus_on(kind, true));
}

/// A world in which blocks `0..2` are registered and blocks `2..4` have bytes.
fn two_sides(huge: [Advice; 2]) -> (World, Userfault) {
    let mut w = world();
    for (block, advice) in [(0, huge[0]), (2, huge[1])] {
        w.map(block * HUGE, 2 * HUGE, RW);
        w.advise(block * HUGE, 2 * HUGE, advice).unwrap();
    }
    for page in 0..2 * HUGE {
        w.put(2 * HUGE + page, (page % 250 + 1) as u8);
    }
    w.advise(2 * HUGE, 2 * HUGE, Advice::DontFork).unwrap();
    let uffd = w.userfaultfd(UffdFeatures::MOVE);
    w.register(&uffd, 0, 2 * HUGE, MISSING);
    (w, uffd)
}

/// Each first access is answered by a move of `step` pages, after which the source is empty.
/// Returns true if the pages of the target are huge in the end.
fn moves(huge: [Advice; 2], step: u64) -> bool {
    let (mut w, uffd) = two_sides(huge);
    let mut faults = 0;
    for page in 0..2 * HUGE {
        let byte = (page % 250 + 1) as u8;
        if let Err(error) = w.get(page) {
            assert_eq!(error, FaultError::Userfault(at(page)));
            let from = at(2 * HUGE + page);
            let cx = &mut w.thread.cx();
            let moved = uffd.move_pages(cx, at(page), (from, step * PAGE), MoveMode::empty());
            assert_eq!(moved, Ok(step * PAGE), "page {page}");
            faults += 1;
        }
        assert_eq!(w.get(page), Ok(byte), "page {page}");
        assert_eq!(w.get(2 * HUGE + page), Ok(0), "page {page}");
    }
    assert_eq!(faults, 2 * HUGE / step);
    w.check_rmap();
    let all_huge = huge_pages(&mut w, 0, 2 * HUGE) == 2 * HUGE;
    uffd.close(&mut w.thread.cx());
    end(w);
    all_huge
}

/// The number of pages that a huge page maps.
pub(crate) fn huge_pages(w: &mut World, from: u64, to: u64) -> u64 {
    let args = ScanArgs {
        mask: PageCategories::HUGE,
        reported: PageCategories::HUGE,
        ..written(from, to, ScanFlags::empty())
    };
    pages(&found(w, args).0)
}

#[test]
fn move_pages() {
    let huge = moves([Advice::NoHugePage; 2], 1);
    assert!(!huge);
}

#[test]
fn move_pmd() {
    let huge = moves([Advice::HugePage; 2], HUGE);
    assert!(huge, "each in one step");
}

#[test]
fn move_pmd_split() {
    moves([Advice::NoHugePage, Advice::HugePage], HUGE);
    moves([Advice::HugePage; 2], 1);
}
