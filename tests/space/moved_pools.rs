//! Huge pages of a pool that move to other frames (`unmap_and_move_huge_page`).

use crate::common::{
    PAGE, World, at,
    calls::{READ, private},
    driver::Driver,
    moving::{BOTH, Comes},
};
use emmu::{
    HugePoolConfig, HugeSize, MachineConfig, MemConfig,
    error::NoMemory,
    file::{File, FileMode, HugetlbFile},
    mm::{
        Advice, ForkMode, MapFlags, MremapFlags, PinKind, ProtectMode, Pte, RegisterMode,
        UffdFeatures,
    },
    notifier::Access,
};
use std::sync::Arc;

/// Small pages in a huge one.
const HUGE: u64 = 512;
const BYTES: u64 = HUGE * PAGE;
/// Small pages in 1 GiB.
const GIB: u64 = HUGE * HUGE;
const SIZE: HugeSize = HugeSize::Mib2;

/// A machine with a pool of `pages`, and memory for two huge pages beside it.
fn world(pages: u64) -> World {
    World::with(MachineConfig {
        memory: MemConfig {
            frames: (pages as u32 + 3) * 512,
            ..MemConfig::default()
        },
        huge_pages: HugePoolConfig {
            pages,
            overcommit: 0,
        },
        ..MachineConfig::default()
    })
}

impl World {
    /// Total, free, reserved and surplus pages.
    fn counts(&self) -> (u64, u64, i64, u64) {
        let pool = self.machine.mem().huge_pool(SIZE);
        (pool.total, pool.free, pool.reserved, pool.surplus)
    }
    fn map_private(&mut self, from: u64, n: u64) {
        let args = private(from * HUGE, n * HUGE).flags(MapFlags::HUGETLB);
        assert_eq!(self.mmap(&args), Ok(at(from * HUGE)));
    }
    /// Maps a new file of `n` huge pages, shared.
    fn map_shared(&mut self, from: u64, n: u64, kind: MapFlags) -> Arc<File> {
        let object = HugetlbFile::memfd(self.machine.host(), "h", n * BYTES, SIZE).unwrap();
        let file = File::open(object, FileMode::ReadWrite);
        self.map_file(from * HUGE, n * HUGE, &file, 0, kind | MapFlags::SHARED);
        file
    }
    /// Moves the page; true if it is in another frame, the same part of a huge page.
    fn moves(&mut self, page: u64) -> bool {
        let before = self.pfn(page).expect("mapped");
        let moved = self.mm.migrate(&mut self.thread.cx(), at(page)).unwrap();
        let now = self.pfn(page);
        assert!(now.is_none() || now == Some(moved.unwrap_or(before)));
        assert!(moved.is_none_or(|to| to != before && to.number() % 512 == before.number() % 512));
        moved.is_some()
    }
    /// Fails if the huge page is mapped in parts.
    fn is_whole(&mut self, from: u64) -> bool {
        let first = self.pfn(from * HUGE).expect("mapped");
        let parts = (0..HUGE).map(|i| {
            self.pfn(from * HUGE + i)
                .map(|pfn| pfn.number() - first.number())
        });
        let whole = parts.eq((0..512).map(Some));
        let cut = self.munmap(from * HUGE, 1);
        whole && cut.is_err()
    }
    fn ends(mut self, pages: u64) {
        self.mm.exit(&mut self.thread.cx());
        assert_eq!(self.counts(), (pages, pages, 0, 0));
        assert_eq!(self.machine.mem().set_huge_pages(SIZE, 0), 0);
        self.end();
    }
}

/// A free page of the pool that nothing was promised is taken; if there is none, a page from
/// outside takes the place of the old one.
#[test]
fn a_page_moves_as_a_whole_and_the_pool_stays_as_large() {
    for more in [0, 1] {
        let mut w = world(2 + more);
        w.map_private(0, 2);
        w.put(5, 1);
        w.put(511, 2);
        let before = w.counts();
        assert_eq!(before, (2 + more, 1 + more, 1, 0));
        assert!(w.moves(5));
        assert_eq!(w.told(), "W0..512");
        assert_eq!(w.counts(), before);
        assert!(w.is_whole(0));
        assert_eq!((w.get(5), w.get(511), w.get(6)), (Ok(1), Ok(2), Ok(0)));
        w.put(5, 3);
        assert_eq!(w.told(), "", "it is the process's own, and writable");
        w.put(HUGE, 1);
        assert!(w.moves(HUGE), "the last page of the pool is in use");
        assert_eq!(w.counts(), (2 + more, more, 0, 0));
        w.check_rmap();
        w.ends(2 + more);
    }
}

/// Without a free block of memory nothing moves.
#[test]
fn a_page_stays_where_there_is_no_other() {
    let mut w = World::with_pool(
        MemConfig {
            frames: 2 * 512,
            ..MemConfig::default()
        },
        1,
    );
    w.map_private(0, 1);
    w.put(0, 1);
    let refused = w.mm.migrate(&mut w.thread.cx(), at(0));
    assert_eq!(refused, Err(NoMemory::Frame));
    assert_eq!((w.told(), w.get(0)), (String::new(), Ok(1)));
    w.ends(1);
}

/// The reservation of a private page goes with the page.
#[test]
fn a_page_that_moved_gives_its_reservation_back() {
    let mut w = world(2);
    w.map_private(0, 1);
    w.put(0, 1);
    assert!(w.moves(0));
    w.advise(0, HUGE, Advice::DontNeed).unwrap();
    assert_eq!(w.counts(), (2, 2, 1, 0), "the promise is kept");
    w.put(0, 1);
    w.ends(2);
}

/// The page of a file moves for all of its mappings, and in the file.
#[test]
fn a_page_of_a_file_moves_in_every_mapping() {
    let mut w = world(3);
    let file = w.map_shared(0, 2, MapFlags::empty());
    w.map_file(4 * HUGE, HUGE, &file, 0, MapFlags::PRIVATE);
    w.put(7, 1);
    assert_eq!(w.get(4 * HUGE + 7), Ok(1));
    w.told();
    assert!(w.moves(7));
    assert_eq!(w.told(), "W0..512 W2048..2560");
    assert!(w.is_whole(0) && w.is_whole(4));
    assert_eq!(w.pfn(7), w.pfn(4 * HUGE + 7));
    w.put(7, 2);
    assert_eq!((w.told(), w.get(4 * HUGE + 7)), (String::new(), Ok(2)));
    let mut byte = [0];
    file.read_at(w.thread.cx(), 7 * PAGE, &mut byte).unwrap();
    assert_eq!(byte, [2]);
    file.truncate(w.thread.cx(), 0).unwrap();
    w.get(7).expect_err("it is cut off");
    drop(file);
    w.ends(3);
}

/// A page that a child has too moves for both, and stays shared.
#[test]
fn a_page_moves_for_parent_and_child() {
    for mode in [ForkMode::Copy, ForkMode::Share] {
        let mut w = world(4);
        w.map_private(0, 1);
        w.put(0, 1);
        let child = w.mm.fork_with(&mut w.thread.cx(), mode).unwrap();
        assert!(w.moves(0));
        w.put(0, 2);
        assert_eq!(
            w.inside(&child, |w| (w.get(0), w.is_whole(0))),
            (Ok(1), true)
        );
        w.inside(&child, |w| w.put(0, 3));
        assert_eq!(w.get(0), Ok(2));
        w.reap(&child);
        w.ends(4);
    }
}

/// `huge_pmd_unshare`: a process gives its shared table up, in a window over all of it; the entry
/// of the last one is changed.
#[test]
fn a_shared_table_is_given_up() {
    let mut w = world(3);
    let kind = MapFlags::NORESERVE;
    let gib = HUGE;
    let file = w.map_shared(gib, gib, kind);
    w.put(GIB, 1);
    w.put(GIB + HUGE, 2);
    let child = w.fork();
    assert_eq!(w.inside(&child, |w| w.get(GIB)), Ok(1));
    w.told();
    assert!(w.moves(GIB));
    let all = format!("W{GIB}..{}", 2 * GIB);
    assert_eq!(w.told(), all);
    assert_eq!((w.pfn(GIB), w.pfn(GIB + HUGE)), (None, None));
    let both = |w: &mut World| (w.pfn(GIB).is_some(), w.pfn(GIB + HUGE).is_some());
    assert_eq!(w.inside(&child, both), (true, true));
    assert_eq!((w.get(GIB), w.get(GIB + HUGE)), (Ok(1), Ok(2)));
    w.reap(&child);
    drop(file);
    w.ends(3);
}

/// Anything but its mappings and its file keeps a page where it is, mapped as one.
#[test]
fn a_page_that_is_held_stays_whole() {
    for kind in [PinKind::LongTerm, PinKind::Short] {
        let mut w = world(2);
        w.map_private(0, 1);
        w.put(0, 1);
        let pin =
            w.mm.pin(&mut w.thread.cx(), at(100), 8, Access::Write, kind);
        let pin = pin.unwrap();
        assert!(!w.moves(0));
        assert_eq!(w.told(), "W0..512");
        assert!(w.is_whole(0));
        pin.write_at(0, &[9]);
        assert_eq!(w.get(100), Ok(9));
        drop(pin);
        assert!(w.moves(0));
        w.ends(2);
    }
    let mut w = world(2);
    let file = w.map_shared(0, 1, MapFlags::empty());
    w.put(3, 1);
    let (driver, registered) = w.mm.register(&mut w.thread.cx(), Driver::new);
    let mm = Arc::clone(&w.mm);
    assert_eq!(driver.read(&mut w.thread.cx(), &mm, at(3)), Ok(1));
    assert!(w.moves(3), "a driver gives its entries up");
    assert_eq!(driver.read(&mut w.thread.cx(), &mm, at(3)), Ok(1));
    w.mm.unregister(&mut w.thread.cx(), registered);
    drop(file);
    w.ends(2);
}

/// What is done to a page on its way holds when it arrives, or stays.
#[test]
fn a_page_on_its_way_obeys() {
    for comes in BOTH {
        let mut w = world(4);
        w.map_private(0, 1);
        w.put(0, 1);
        w.while_moving(0, comes, |w| w.protect(0, HUGE, READ).unwrap());
        assert!(w.is_whole(0));
        w.mm.store(&mut w.thread.cx(), at(0), 2)
            .expect_err("read-only");
        assert_eq!(w.get(0), Ok(1));
        w.ends(4);

        let mut w = world(4);
        w.map_private(0, 1);
        w.put(0, 1);
        let child = w.while_moving(0, comes, World::fork);
        w.put(0, 2);
        assert_eq!(
            w.inside(&child, |w| (w.get(0), w.is_whole(0))),
            (Ok(1), true)
        );
        w.reap(&child);
        w.ends(4);

        let mut w = world(4);
        w.map_private(0, 1);
        w.put(0, 1);
        w.while_moving(0, comes, |w| {
            let flags = MremapFlags::MAYMOVE | MremapFlags::FIXED;
            w.remap(0, HUGE, HUGE, flags, 8 * HUGE);
        });
        assert_eq!(w.get(8 * HUGE), Ok(1));
        assert!(w.is_whole(8));
        w.ends(4);
    }
    let mut w = world(4);
    w.map_private(0, 1);
    w.put(0, 1);
    w.while_moving(0, Comes::Through, |w| {
        w.munmap(0, HUGE).unwrap();
    });
    w.ends(4);
}

/// The page of a file that is cut while it moves is gone everywhere.
#[test]
fn a_page_on_its_way_is_cut_off() {
    let mut w = world(3);
    let file = w.map_shared(0, 1, MapFlags::empty());
    w.put(0, 1);
    let pfn = w.pfn(0).expect("mapped");
    let cut = Arc::clone(&file);
    let cuts = w.while_moving(0, Comes::ToNothingByThat, |w| {
        let machine = Arc::clone(&w.machine);
        let held = machine.mem().refcount(pfn);
        let cuts = std::thread::spawn(move || {
            let mut thread = machine.enter().unwrap();
            cut.truncate(thread.cx(), 0).unwrap();
        });
        // It takes a reference on the page, and waits for its lock.
        while w.machine.mem().refcount(pfn) == held {
            std::thread::yield_now();
        }
        assert_eq!(w.pte(0), Pte::None);
        cuts
    });
    cuts.join().unwrap();
    w.get(0).expect_err("it is cut off");
    assert_eq!(w.counts(), (3, 3, 0, 0));
    drop(file);
    w.ends(3);
}

/// `pte_swp_uffd_wp`: the mark moves with the page, and may be taken away on the way.
#[test]
fn the_protection_of_userfaultfd_moves_along() {
    for ends_on_the_way in [false, true] {
        let mut w = world(3);
        w.map_private(0, 1);
        w.put(0, 1);
        let uffd = w.userfaultfd(UffdFeatures::empty());
        w.register(&uffd, 0, HUGE, RegisterMode::WP);
        w.write_protect(&uffd, 0, HUGE, ProtectMode::WP);
        w.while_moving(0, Comes::Through, |w| {
            if ends_on_the_way {
                w.write_protect(&uffd, 0, HUGE, ProtectMode::empty());
            }
        });
        let stored = w.mm.store(&mut w.thread.cx(), at(9), 2);
        assert_eq!(stored.is_ok(), ends_on_the_way);
        assert!(w.is_whole(0));
        drop(uffd);
        w.ends(3);
    }
}

/// A page of 1 GiB moves to a free page of its pool, and to no other memory.
#[test]
fn a_page_of_a_gib_moves_inside_of_its_pool() {
    let mut w = World::with(MachineConfig {
        memory: MemConfig {
            frames: 4 << 18,
            ..MemConfig::default()
        },
        ..MachineConfig::default()
    });
    let gib = HugeSize::Gib1;
    assert_eq!(w.machine.mem().set_huge_pages(gib, 1), 1);
    let args = private(GIB, GIB).flags(MapFlags::HUGETLB | MapFlags::HUGE_1GB);
    assert_eq!(w.mmap(&args), Ok(at(GIB)));
    w.put(GIB + 700, 1);
    let refused = w.mm.migrate(&mut w.thread.cx(), at(GIB + 700));
    assert_eq!(refused, Err(NoMemory::Frame));
    assert_eq!(w.machine.mem().set_huge_pages(gib, 2), 2);
    assert!(w.moves(GIB + 700));
    assert_eq!(w.told(), format!("W{GIB}..{}", 2 * GIB));
    assert_eq!((w.get(GIB + 700), w.get(GIB)), (Ok(1), Ok(0)));
    w.put(2 * GIB - 1, 4);
    let child = w.fork();
    assert!(w.moves(GIB), "for both");
    assert_eq!(w.inside(&child, |w| w.get(2 * GIB - 1)), Ok(4));
    w.reap(&child);
    w.munmap(GIB, GIB).unwrap();
    assert_eq!(w.machine.mem().huge_pool(gib).free, 2);
    assert_eq!(w.machine.mem().set_huge_pages(gib, 0), 0);
    w.end();
}

/// A page from outside counts while it is there, and is a surplus page of a pool that becomes
/// smaller; but a pool has no more of these than pages.
#[test]
fn a_pool_that_is_resized_while_a_page_moves_has_its_counts() {
    for (comes, there) in [(Comes::Through, 2), (Comes::ToNothing, 3)] {
        for size in 0..=there {
            let mut w = world(1);
            w.map_private(0, 1);
            w.put(0, 1);
            let resizes = |w: &mut World| w.machine.mem().set_huge_pages(SIZE, size);
            assert_eq!(w.while_moving(0, comes, resizes), size);
            let surplus = (there - size).min(1);
            assert_eq!(w.counts(), (1, 0, 0, surplus), "{comes:?} {size}");
            assert_eq!(w.get(0), Ok(1));
            assert_eq!(w.machine.mem().set_huge_pages(SIZE, 0), 0);
            assert_eq!(w.counts(), (1, 0, 0, 1));
            assert_eq!(w.machine.mem().set_huge_pages(SIZE, 1), 1);
            w.ends(1);
        }
    }
}
