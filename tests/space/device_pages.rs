//! Pages that lie on a device, under every operation: `docs/entries.md` has the table, and names
//! the tests here.

use crate::common::{
    PAGE, RW, World, at,
    mirror::{Board, Mirror, bytes, fill, pattern, world_of},
};
use emmu::{
    Errno, FaultError,
    addr::Vpn,
    error::UserfaultError,
    frame::DeviceKind,
    mm::{
        Advice, DeviceRegistration, ForkMode, MapFlags, MigrateSelect, MigrateTo, MoveMode,
        MremapFlags, PageState, PinKind, Prot, ProtectMode, Pte, RegisterMode, Stays, UffdFeatures,
    },
    notifier::Access,
};
use std::sync::{Arc, atomic::Ordering};

/// Pages `0..n`, of which each is its number plus one, and a device.
struct There {
    w: World,
    board: Arc<Board>,
    mirror: Arc<Mirror>,
    registration: DeviceRegistration,
}

impl There {
    /// All pages are in memory.
    fn at_home(n: u64) -> Self {
        Self::with(DeviceKind::Private, n)
    }
    fn with(kind: DeviceKind, n: u64) -> Self {
        let mut w = world_of(n, RW, 0);
        fill(&mut w, 0, n);
        let (board, registration) = Board::add_kind(&w, kind, 1024);
        let mirror = Mirror::with(&mut w.thread.cx(), &w.mm, Some(board.clone()));
        Self {
            w,
            board,
            mirror,
            registration,
        }
    }
    /// All pages are on the device.
    fn new(n: u64) -> Self {
        let mut t = Self::at_home(n);
        assert_eq!(t.go(0, n), vec![Ok(()); n as usize]);
        assert_eq!(t.board.memory.in_use() as u64, n);
        t.w.told();
        t
    }
    /// Has pages migrate to the device.
    fn go(&mut self, from: u64, n: u64) -> Vec<Result<(), Stays>> {
        let (cx, to) = (&mut self.w.thread.cx(), MigrateTo::Device);
        let select = MigrateSelect::SYSTEM;
        let done = self.mirror.migrate(cx, &self.w.mm, (from, n), select, to);
        done.unwrap()
            .pages
            .into_iter()
            .map(|(_, why)| why)
            .collect()
    }
    /// Whether the device has the page, and may write it.
    fn there(&mut self, n: u64) -> Option<bool> {
        match self.w.pte(n) {
            Pte::Device { pfn, write } => {
                assert!(self.board.memory.has(pfn));
                Some(write)
            }
            _ => None,
        }
    }
    fn copies(&mut self, page: u64) -> bool {
        self.w.told();
        self.w.put(page, 77);
        !self.w.told().is_empty()
    }
    fn end(mut self) {
        self.w.check_rmap();
        self.w.mm.exit(&mut self.w.thread.cx());
        assert_eq!(self.board.memory.in_use(), 0, "frames left on the device");
        let cx = &mut self.w.thread.cx();
        self.w.machine.remove_device(cx, self.registration).unwrap();
        self.w.end();
    }
}

/// Two windows: one in which pages become marks, one in which holes are filled; a page comes home
/// in one.
#[test]
fn windows_of_a_migration() {
    let mut t = There::at_home(4);
    t.w.map(4, 4, RW);
    t.w.told();
    assert_eq!(t.go(2, 4), [Ok(()); 4]);
    assert_eq!(t.w.told(), "W2..6 W4..6");
    assert_eq!((t.there(3), t.there(4)), (Some(true), Some(true)));
    assert_eq!(t.w.told(), "");
    assert_eq!(bytes(&mut t.w, 2, 4), [3, 4, 0, 0]);
    assert_eq!(t.w.told(), "W2..3 W3..4 W4..5 W5..6");
    t.end();
}

/// Home by request, without a fault.
#[test]
fn pages_come_home_by_request() {
    let mut t = There::new(4);
    let (cx, select) = (&mut t.w.thread.cx(), MigrateSelect::DEVICE_PRIVATE);
    let mut seen = Vec::new();
    let args = emmu::mm::MigrateArgs {
        memory: &t.board.memory,
        range: World::pages(0, 4),
        select,
    };
    let done = t.w.mm.migrate_vma(cx, &args, |page| {
        seen.push((page.is_hole, page.on_device));
        match page.at == Vpn::containing(at(1)) {
            true => MigrateTo::Nowhere,
            false => MigrateTo::System,
        }
    });
    let outcome: Vec<_> = done
        .unwrap()
        .pages
        .into_iter()
        .map(|(_, why)| why)
        .collect();
    assert_eq!(outcome, [Ok(()), Err(Stays::Driver), Ok(()), Ok(())]);
    assert_eq!(seen, [(false, true); 4]);
    assert_eq!(t.w.told(), "W0..4");
    assert_eq!((t.there(0), t.there(1)), (None, Some(true)));
    assert!(!t.copies(2), "it is still nobody else's");
    t.end();
}

#[test]
fn a_fork_shares_a_page_on_a_device() {
    for mode in [ForkMode::Copy, ForkMode::Share] {
        let mut t = There::new(2);
        let child = t.w.mm.fork_with(&mut t.w.thread.cx(), mode).unwrap();
        assert_eq!((t.there(0), t.board.memory.in_use()), (Some(false), 2));
        // It comes home for both, read-only for both.
        assert_eq!(t.w.inside(&child, |w| w.get(0)), Ok(1), "{mode:?}");
        assert_eq!(t.there(0), None);
        assert!(matches!(t.w.pte(0), Pte::Present { write: false, .. }));
        t.w.inside(&child, |w| w.put(0, 0xee));
        t.w.inside(&child, |w| w.put(1, 0xee));
        assert_eq!((t.w.get(0), t.w.get(1)), (Ok(1), Ok(2)), "{mode:?}");
        t.w.reap(&child);
        t.end();
        // One that ends leaves it to the other.
        let mut t = There::new(1);
        let child = t.w.mm.fork_with(&mut t.w.thread.cx(), mode).unwrap();
        t.w.reap(&child);
        assert_eq!((t.board.memory.in_use(), t.w.get(0)), (1, Ok(1)));
        t.end();
    }
}

/// A page that several processes have goes to the device for all, and comes home for all.
#[test]
fn a_shared_page_goes_for_all() {
    let mut t = There::at_home(2);
    let child = t.w.fork();
    t.w.told();
    assert_eq!(t.go(0, 2), [Ok(()), Ok(())]);
    let there =
        t.w.inside(&child, |w| matches!(w.pte(0), Pte::Device { .. }));
    assert!(there && t.there(0) == Some(false) && t.board.memory.in_use() == 2);
    let cx = &mut t.w.thread.cx();
    assert_eq!(t.w.machine.evict_device(cx, &t.board.memory), 0);
    assert_eq!(t.w.inside(&child, |w| w.get(1)), Ok(2));
    assert_eq!(t.w.get(1), Ok(2));
    t.w.reap(&child);
    t.end();
}

#[test]
fn rights_change_on_a_device() {
    let mut t = There::new(2);
    t.w.protect(0, 1, Prot::READ).unwrap();
    assert_eq!(t.there(0), Some(false));
    t.w.protect(0, 1, RW).unwrap();
    assert_eq!(t.there(0), Some(false), "as on Linux, it stays read-only");
    assert_eq!(t.w.get(0), Ok(1));
    assert!(!t.copies(0), "it is still nobody else's");
    t.w.protect(1, 1, Prot::empty()).unwrap();
    assert_eq!(t.w.get(1), Err(FaultError::Denied(at(1))));
    assert_eq!(t.there(1), Some(false));
    t.end();
}

#[test]
fn a_page_moves_is_cut_and_given_up_with_its_entry() {
    let mut t = There::new(6);
    let how = MremapFlags::MAYMOVE | MremapFlags::FIXED;
    t.w.remap(0, 1, 1, how, 20);
    t.w.remap(1, 1, 1, how | MremapFlags::DONTUNMAP, 21);
    assert_eq!((t.there(20), t.there(21)), (Some(true), Some(true)));
    assert_eq!(bytes(&mut t.w, 20, 2), pattern(0, 2));
    t.w.advise(2, 1, Advice::DontNeed).unwrap();
    t.w.advise(3, 1, Advice::GuardInstall).unwrap();
    t.w.munmap(4, 1).unwrap();
    assert_eq!((t.board.memory.in_use(), t.w.get(2)), (1, Ok(0)));
    // The frames hold nothing of the pages before.
    assert_eq!(t.go(2, 1), [Ok(())]);
    assert_eq!(t.w.get(2), Ok(0));
    t.end();
}

#[test]
fn what_looks_for_pages_in_memory_passes_it_by() {
    let mut t = There::new(4);
    for advice in [Advice::Cold, Advice::PageOut, Advice::Free] {
        t.w.advise(0, 4, advice).unwrap();
    }
    let cx = &mut t.w.thread.cx();
    assert_eq!(t.w.machine.reclaim_all(cx), 0);
    assert_eq!(t.w.mm.migrate(cx, at(0)), Ok(None));
    let mm = Arc::clone(&t.w.mm);
    let merged =
        t.w.machine
            .merge_same_pages(cx, &[(&*mm, at(0)), (&*mm, at(0))]);
    assert_eq!(merged, 0);
    assert_eq!(t.w.in_core(0, 4), Ok(vec![true; 4]));
    let map = mm.pagemap(&mut t.w.thread.cx(), World::pages(0, 1));
    assert_eq!(map[0].1, PageState::Swap);
    assert_eq!(t.board.memory.in_use(), 4);
    t.end();
}

#[test]
fn what_needs_the_page_brings_it_home() {
    let mut t = There::new(512);
    t.w.lock(1, 1).unwrap();
    assert_eq!((t.there(1), t.w.locked()), (None, 1));
    t.w.unlock(1, 1).unwrap();
    let cx = &mut t.w.thread.cx();
    let pin =
        t.w.mm
            .pin(cx, at(2), 1, Access::Write, PinKind::Short)
            .unwrap();
    let mut byte = [0];
    t.w.mm.read_remote(cx, at(3), &mut byte).unwrap();
    assert_eq!((byte, t.there(2), t.there(3)), ([4], None, None));
    assert_eq!(t.go(2, 2), [Err(Stays::InUse), Ok(())], "pinned, free");
    drop(pin);
    t.end();

    let mut t = There::at_home(0);
    t.w.map(512, 512, RW);
    t.w.fill(512, 512);
    t.go(600, 2);
    t.w.advise(512, 512, Advice::Collapse).unwrap();
    assert_eq!((t.board.memory.in_use(), t.w.get(601)), (0, Ok(1)));
    t.end();
}

#[test]
fn write_protection_of_userfaultfd_goes_along() {
    let mut t = There::at_home(2);
    let uffd = t.w.userfaultfd(UffdFeatures::empty());
    t.w.register(&uffd, 0, 2, RegisterMode::WP);
    t.w.write_protect(&uffd, 0, 1, ProtectMode::WP);
    assert_eq!(t.go(0, 2), [Ok(()), Ok(())]);
    assert_eq!((t.there(0), t.there(1)), (Some(false), Some(true)));
    t.w.write_protect(&uffd, 1, 1, ProtectMode::WP);
    assert_eq!(
        (t.there(1), t.w.get(0), t.w.get(1)),
        (Some(false), Ok(1), Ok(2))
    );
    for n in 0..2 {
        let stored = t.w.mm.store(&mut t.w.thread.cx(), at(n), 9);
        assert_eq!(stored, Err(FaultError::Userfault(at(n))));
    }
    t.end();
}

#[test]
fn userfaultfd_neither_moves_nor_covers_it() {
    let mut t = There::new(2);
    t.w.map(8, 4, RW);
    let uffd = t.w.userfaultfd(UffdFeatures::empty());
    t.w.register(&uffd, 8, 4, RegisterMode::MISSING);
    let cx = &mut t.w.thread.cx();
    let moved = uffd.move_pages(cx, at(8), (at(0), PAGE), MoveMode::empty());
    assert_eq!(moved.map_err(UserfaultError::errno), Err(Errno::EFAULT));
    // The fault of a hole there is the handler's.
    assert_eq!(t.go(8, 1), [Err(Stays::Changed)]);
    assert_eq!((t.there(8), t.board.memory.in_use()), (None, 2));
    t.end();
}

/// `VM_FAULT_SIGBUS`: the device has lost the page, which stays there.
#[test]
fn a_page_that_is_lost_is_sigbus() {
    let mut t = There::new(2);
    t.board.lost.store(true, Ordering::Relaxed);
    let cx = &mut t.w.thread.cx();
    let lost = t.w.mm.load(cx, at(0) + 5);
    assert_eq!(lost, Err(FaultError::DeviceLost(at(0) + 5)));
    assert_eq!(lost.unwrap_err().signal(), Some(emmu::Signal::Bus));
    assert_eq!(t.w.machine.evict_device(cx, &t.board.memory), 2);
    assert_eq!((t.there(0), t.there(1)), (Some(true), Some(true)));
    t.board.lost.store(false, Ordering::Relaxed);
    assert_eq!(bytes(&mut t.w, 0, 2), [1, 2]);
    t.end();
}

/// Without a frame for it the page stays on the device, and nothing is lost.
#[test]
fn a_page_stays_when_memory_is_full() {
    let mut t = There::new(2);
    t.w.machine.mem().inject().arm(1);
    assert!(matches!(t.w.get(0), Err(FaultError::NoMemory(_))));
    assert_eq!(t.there(0), Some(true));
    t.w.machine.mem().inject().disarm();
    assert_eq!(t.w.get(0), Ok(1));
    t.end();
}

#[test]
fn what_stays_says_why() {
    let mut t = There::at_home(6);
    t.w.map(6, 2, Prot::READ);
    assert_eq!(t.w.get(6), Ok(0));
    t.w.advise(0, 1, Advice::PageOut).unwrap();
    t.w.advise(1, 1, Advice::GuardInstall).unwrap();
    t.w.mm
        .madvise(&mut t.w.thread.cx(), at(2), 2 * PAGE, Advice::Mergeable)
        .unwrap();
    t.w.put(3, 3);
    let mm = Arc::clone(&t.w.mm);
    let pages = [(&*mm, at(2)), (&*mm, at(3))];
    let merged = t.w.machine.merge_same_pages(&mut t.w.thread.cx(), &pages);
    assert_eq!(merged, 1);
    let held = t.w.mm.get_pages(&mut t.w.thread.cx(), at(4), 1).unwrap();
    let absent = Err(Stays::Absent);
    let merged = Err(Stays::Merged);
    assert_eq!(
        [t.go(0, 2), t.go(2, 2), t.go(4, 2), t.go(6, 2)].concat(),
        [
            absent,
            absent,
            merged,
            merged,
            Err(Stays::InUse),
            Ok(()),
            Ok(()),
            Ok(())
        ],
        "in swap, a guard, merged, held, free, the zero page, a hole"
    );
    assert_eq!(t.go(5, 1), [Err(Stays::NotSelected)], "it is there");
    drop(held);
    assert_eq!((t.there(5), t.there(6)), (Some(true), Some(false)));
    assert_eq!(bytes(&mut t.w, 5, 3), [6, 0, 0]);
    t.end();

    let mut t = There::at_home(0);
    let file = crate::common::objects::shmem(&mut t.w, 2);
    t.w.map_file(0, 2, &file, 0, MapFlags::PRIVATE);
    t.w.get(0).unwrap();
    assert_eq!(t.go(0, 2), [Err(Stays::OfObject); 2]);
    t.w.advise(0, 2, Advice::DontNeed).unwrap();
    assert_eq!(t.go(0, 2), [Err(Stays::Absent); 2]);
    assert_eq!(t.board.memory.in_use(), 0);
}

/// A device that is full takes what it can.
#[test]
fn a_full_device_takes_no_more() {
    let mut w = world_of(4, RW, 0);
    fill(&mut w, 0, 4);
    let (board, registration) = Board::add(&w, 3);
    let mirror = Mirror::with(&mut w.thread.cx(), &w.mm, Some(board.clone()));
    let mut t = There {
        w,
        board,
        mirror,
        registration,
    };
    assert_eq!(t.go(0, 4), [Ok(()), Ok(()), Ok(()), Err(Stays::NoFrame)]);
    assert_eq!(bytes(&mut t.w, 0, 4), pattern(0, 4));
    t.end();
}

/// Huge pages go as single pages; a page in the swap cache leaves it.
#[test]
fn huge_and_cached_pages_go_as_single_pages() {
    let mut t = There::at_home(0);
    t.w.map(512, 512, RW);
    t.w.advise(512, 512, Advice::HugePage).unwrap();
    t.w.put(512, 1);
    t.w.put(700, 7);
    assert_eq!(t.go(699, 3).len(), 3);
    assert_eq!(t.there(700), Some(true));
    assert_eq!((t.w.get(700), t.w.get(512)), (Ok(7), Ok(1)));
    t.end();

    let mut t = There::at_home(2);
    t.w.advise(0, 2, Advice::PageOut).unwrap();
    assert_eq!(bytes(&mut t.w, 0, 2), [1, 2]);
    assert_eq!(t.go(0, 2), [Ok(()), Ok(())]);
    assert_eq!(t.w.machine.mem().swap().used(), 0);
    assert_eq!(bytes(&mut t.w, 0, 2), [1, 2]);
    t.end();
}

/// The machine keeps the driver until every page is home.
#[test]
fn a_device_is_removed_when_its_pages_are_home() {
    let mut t = There::new(2);
    let weak = Arc::downgrade(&t.board);
    let child = t.w.fork();
    t.board.lost.store(true, Ordering::Relaxed);
    let cx = &mut t.w.thread.cx();
    let registration = t.w.machine.remove_device(cx, t.registration).unwrap_err();
    t.board.lost.store(false, Ordering::Relaxed);
    t.w.mm.exit(cx);
    drop((t.board, t.mirror));
    assert_eq!(
        t.w.inside(&child, |w| w.get(0)),
        Ok(1),
        "the driver is there"
    );
    t.w.machine
        .remove_device(&mut t.w.thread.cx(), registration)
        .unwrap();
    assert_eq!(t.w.inside(&child, |w| w.get(1)), Ok(2));
    t.w.reap(&child);
    drop(t.w);
    assert!(weak.upgrade().is_none());
}

/// A page that its device has alone, under every operation.
#[test]
fn exclusive_entries_go_as_present_ones() {
    let mut t = There::at_home(8);
    let cx = &mut t.w.thread.cx();
    t.mirror.exclusive(cx, &t.w.mm, 0, 8).unwrap();
    assert_eq!(
        t.w.told(),
        "W0..1 W1..2 W2..3 W3..4 W4..5 W5..6 W6..7 W7..8"
    );
    assert!(matches!(t.w.pte(0), Pte::Exclusive(_)));
    t.w.check_rmap();
    assert_eq!(t.w.in_core(0, 1), Ok(vec![true]));
    assert_eq!(t.go(0, 1), [Err(Stays::Absent)], "not to a device");
    let cx = &mut t.w.thread.cx();
    assert_eq!(t.w.mm.migrate(cx, at(0)), Ok(None), "nor to another frame");
    let how = MremapFlags::MAYMOVE | MremapFlags::FIXED;
    t.w.remap(0, 1, 1, how, 20);
    assert!(matches!(t.w.pte(20), Pte::Exclusive(_)));
    t.w.told();
    assert_eq!((t.w.get(20), t.w.told().as_str()), (Ok(1), "W20..21"));
    assert!(!t.copies(20), "it was the process's own all the time");
    t.w.munmap(1, 1).unwrap();
    t.w.advise(2, 1, Advice::DontNeed).unwrap();
    t.w.protect(3, 1, Prot::empty()).unwrap();
    assert_eq!(
        (t.w.get(2), t.w.get(3)),
        (Ok(0), Err(FaultError::Denied(at(3))))
    );
    let uffd = t.w.userfaultfd(UffdFeatures::empty());
    t.w.register(&uffd, 4, 1, RegisterMode::WP);
    t.w.write_protect(&uffd, 4, 1, ProtectMode::WP);
    assert_eq!(t.w.get(4), Ok(5));
    let stored = t.w.mm.store(&mut t.w.thread.cx(), at(4), 9);
    assert_eq!(stored, Err(FaultError::Userfault(at(4))));
    // Reclaim takes the page as any other, with what the device wrote.
    let cx = &mut t.w.thread.cx();
    let page = Vpn::containing(at(5));
    t.mirror
        .gate
        .lock(cx)
        .lookup_mut(&page)
        .unwrap()
        .write(0, &[55]);
    assert!(t.w.machine.reclaim_all(cx) > 0);
    assert!(matches!(t.w.pte(5), Pte::Swap(_)));
    assert_eq!(bytes(&mut t.w, 5, 3), [55, 7, 8]);
    t.end();
}

#[test]
fn a_fork_takes_an_exclusive_page_back() {
    for mode in [ForkMode::Copy, ForkMode::Share] {
        let mut t = There::at_home(2);
        let cx = &mut t.w.thread.cx();
        t.mirror.exclusive(cx, &t.w.mm, 0, 2).unwrap();
        let pin =
            t.w.mm
                .pin(cx, at(1), 1, Access::Write, PinKind::Short)
                .unwrap();
        let cx = &mut t.w.thread.cx();
        t.mirror.exclusive(cx, &t.w.mm, 1, 1).unwrap();
        let child = t.w.mm.fork_with(cx, mode).unwrap();
        assert!(!t.mirror.has(&mut t.w.thread.cx(), 0));
        assert!(
            matches!(t.w.pte(0), Pte::Present { write: false, .. }),
            "{mode:?}"
        );
        t.w.put(0, 50);
        assert!(!t.copies(1), "pinned: the child got a copy");
        assert_eq!(t.w.inside(&child, |w| bytes(w, 0, 2)), [1, 2]);
        drop(pin);
        t.w.reap(&child);
        t.end();
    }
}

/// `folio_lock`: while the driver is about to map the page, an access waits, and then finds what
/// the device has written.
#[test]
fn an_access_waits_until_the_device_has_used_the_page() {
    let mut t = There::at_home(1);
    let (mm, gate) = (t.w.mm.clone(), &t.mirror.gate);
    let (page, cx) = (Vpn::containing(at(0)), &mut t.w.thread.cx());
    let read = std::thread::scope(|s| {
        let given = mm.make_device_exclusive(cx, at(0), None, |exclusive, mut cx| {
            let reader = s.spawn(|| {
                let mut thread = mm.machine().enter().unwrap();
                mm.load(&mut thread.cx(), at(0)).unwrap()
            });
            let ticket = gate.ticket(page, Access::Write);
            let pending = exclusive.resolve(&mut cx, ticket).unwrap().unwrap();
            let permit = pending
                .admit(&mut cx)
                .expect("no window while it is locked");
            let mut gate = permit.establish(page);
            gate.lookup_mut(&page).unwrap().write(0, &[9]);
            reader
        });
        given.unwrap().join().unwrap()
    });
    assert_eq!(read, 9);
    t.end();
}

#[test]
fn only_private_memory_is_had_alone() {
    let mut t = There::at_home(1);
    t.w.share(8, 1);
    t.w.map(9, 1, Prot::READ);
    let cx = &mut t.w.thread.cx();
    let mut refused = |n| t.mirror.exclusive(cx, &t.w.mm, n, 1).unwrap_err();
    assert_eq!(refused(8), Errno::EOPNOTSUPP);
    assert_eq!([refused(9), refused(10)], [Errno::EFAULT; 2]);
    // A huge page is mapped by small entries first.
    t.w.map(512, 512, RW);
    t.w.advise(512, 512, Advice::HugePage).unwrap();
    t.w.put(600, 6);
    t.w.told();
    t.mirror
        .exclusive(&mut t.w.thread.cx(), &t.w.mm, 600, 1)
        .unwrap();
    assert_eq!(t.w.told(), "W512..1024 W600..601");
    assert_eq!((t.w.get(600), t.w.get(601)), (Ok(6), Ok(0)));
    t.end();
}

/// A page on a device that processors reach is mapped as any other, and stays there but for a
/// long-term pin.
#[test]
fn coherent_pages_are_mapped_and_passed_by() {
    let mut t = There::with(DeviceKind::Coherent, 512);
    t.go(0, 8);
    let frames = |t: &There| t.board.memory.in_use();
    assert_eq!(frames(&t), 8);
    t.w.told();
    assert!(matches!(t.w.pte(0), Pte::Present { pfn, write: true } if t.board.memory.has(pfn)));
    t.w.put(0, 10);
    assert_eq!((t.w.get(0), t.w.told().as_str()), (Ok(10), ""));
    for advice in [Advice::Cold, Advice::PageOut, Advice::Free] {
        t.w.advise(0, 8, advice).unwrap();
    }
    let cx = &mut t.w.thread.cx();
    assert_eq!(t.w.mm.migrate(cx, at(0)), Ok(None));
    let mm = Arc::clone(&t.w.mm);
    let pages = [(&*mm, at(1)), (&*mm, at(1))];
    assert_eq!(t.w.machine.merge_same_pages(cx, &pages), 0);
    t.w.advise(1, 2, Advice::Mergeable).unwrap();
    t.w.put(2, 2);
    let pages = [(&*mm, at(1)), (&*mm, at(2))];
    let cx = &mut t.w.thread.cx();
    assert_eq!(t.w.machine.merge_same_pages(cx, &pages), 0);
    t.w.lock(3, 1).unwrap();
    t.w.unlock(3, 1).unwrap();
    t.w.machine.reclaim_all(&mut t.w.thread.cx());
    assert_eq!((frames(&t), bytes(&mut t.w, 0, 4)), (8, vec![10, 2, 2, 4]));
    // Copy-on-write makes copies in memory.
    let child = t.w.fork();
    t.w.put(0, 11);
    assert_eq!((frames(&t), t.w.inside(&child, |w| w.get(0))), (8, Ok(10)));
    t.w.reap(&child);
    assert_eq!(frames(&t), 7);
    t.w.put(4, 5);
    // A reference leaves a page there, and keeps a long-term pin from bringing it home.
    let cx = &mut t.w.thread.cx();
    let held = t.w.mm.get_pages(cx, at(4), 1).unwrap();
    let pin = |t: &mut There| {
        let cx = &mut t.w.thread.cx();
        t.w.mm.pin(cx, at(4), 1, Access::Write, PinKind::LongTerm)
    };
    assert_eq!(pin(&mut t).err().map(|why| why.errno()), Some(Errno::EBUSY));
    drop(held);
    let pinned = pin(&mut t).unwrap();
    assert!(!t.board.memory.has(pinned.pfns()[0]));
    assert_eq!((frames(&t), t.w.get(4)), (6, Ok(5)));
    drop(pinned);
    t.end();
}

/// `SCAN_PAGE_NULL`: a page that processors reach on a device keeps the others from a huge page.
#[test]
fn a_coherent_page_keeps_a_collapse_out() {
    let mut t = There::with(DeviceKind::Coherent, 0);
    t.w.map(512, 512, RW);
    t.w.fill(512, 512);
    t.go(600, 1);
    let refused = t.w.advise(512, 512, Advice::Collapse).unwrap_err();
    assert_eq!(refused, Errno::EINVAL);
    let (cx, select) = (&mut t.w.thread.cx(), MigrateSelect::DEVICE_COHERENT);
    let done = t
        .mirror
        .migrate(cx, &t.w.mm, (512, 512), select, MigrateTo::System);
    assert_eq!(done.unwrap().moved(), 1);
    t.w.advise(512, 512, Advice::Collapse).unwrap();
    t.end();
}
