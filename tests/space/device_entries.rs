//! Pages of memory that a device has alone, and pages on a device that processors reach, under
//! every operation: `docs/entries.md` has the table, and names the tests here.

use crate::common::{
    PAGE, RW, at,
    mirror::{Mirror, There, bytes, world_of},
};
use emmu::{
    Errno, FaultError, Mm,
    addr::{Pfn, Vpn},
    ctx::{CallCx, FolioCx},
    frame::{DeviceKind, FrameLock},
    mm::{
        Advice, ExclusivePage, ForkMode, MapFlags, MigrateSelect, MigrateTo, MremapFlags, PinKind,
        Prot, ProtectMode, Pte, RegisterMode, Stays, UffdFeatures, Userfault,
    },
    notifier::Access,
    rmap::RmapNotifier,
};
use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

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

/// The driver draws its ticket after the window in which the right went: the entry says so.
#[test]
fn rights_that_go_before_the_device_maps_the_page_are_gone() {
    let takes: [fn(&Mm, &mut CallCx<'_>, &Userfault); 2] = [
        |mm, cx, _| mm.mprotect(cx, at(0), PAGE, Prot::READ).unwrap(),
        |_, cx, uffd| {
            uffd.write_protect(cx, at(0), PAGE, ProtectMode::WP)
                .unwrap();
        },
    ];
    for take in takes {
        let mut t = There::at_home(1);
        let uffd = t.w.userfaultfd(UffdFeatures::empty());
        t.w.register(&uffd, 0, 1, RegisterMode::WP);
        let (mm, gate) = (t.w.mm.clone(), &t.mirror.gate);
        let meanwhile = || {
            let mut thread = mm.machine().enter().unwrap();
            take(&mm, &mut thread.cx(), &uffd);
        };
        let cx = &mut t.w.thread.cx();
        let found = mm.make_device_exclusive(cx, at(0), None, |exclusive, mut cx| {
            std::thread::scope(|s| s.spawn(meanwhile).join().unwrap());
            let ticket = gate.ticket(exclusive.page(), Access::Write);
            exclusive.resolve(&mut cx, ticket).unwrap().is_some()
        });
        assert_eq!(found, Ok(false));
        assert_eq!(t.w.get(0), Ok(1));
        t.end();
    }
}

/// Drivers that have the frame by number lose it before the device has the page.
struct Exporter(AtomicU32);

impl RmapNotifier for Exporter {
    fn invalidate_frame(&self, _: FolioCx<'_>, _: Pfn) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn an_exported_page_is_taken_from_its_exporter_first() {
    let mut t = There::at_home(1);
    let exporter = Arc::new(Exporter(AtomicU32::new(0)));
    let registration = t.w.machine.register_exports(exporter.clone());
    let cx = &mut t.w.thread.cx();
    let export = |_: FolioCx<'_>, frame: &FrameLock<'_>| frame.export();
    t.w.mm
        .with_locked_frame(cx, at(0), Access::Write, export)
        .unwrap();
    let told = |_: &ExclusivePage<'_>, _: FolioCx<'_>| exporter.0.load(Ordering::Relaxed);
    assert_eq!(t.w.mm.make_device_exclusive(cx, at(0), None, told), Ok(1));
    assert_eq!(t.w.get(0), Ok(1));
    assert_eq!(exporter.0.load(Ordering::Relaxed), 1, "once");
    let cx = &mut t.w.thread.cx();
    t.w.machine.unregister_exports(cx, registration);
    t.end();
}

/// The owner of the memory where the page lies gets it as any other device.
#[test]
fn a_coherent_page_that_another_device_has_alone_is_taken_back() {
    let mut t = There::with(DeviceKind::Coherent, 1);
    assert_eq!(t.go(0, 1), [Ok(())]);
    let cx = &mut t.w.thread.cx();
    let other = Mirror::on(cx, &t.w.mm);
    other.exclusive(cx, &t.w.mm, 0, 1).unwrap();
    assert!(other.has(cx, 0));
    assert_eq!(t.mirror.read(cx, &t.w.mm, 0, 1).unwrap().0, [1]);
    assert!(!other.has(cx, 0));
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

/// Not even a private one, since it has no parts.
#[test]
fn a_page_of_a_pool_is_had_alone_by_no_device() {
    let mut w = world_of(0, RW, 1);
    w.map_with(512, 512, RW, MapFlags::HUGETLB);
    w.put(512, 7);
    let mirror = Mirror::on(&mut w.thread.cx(), &w.mm);
    w.told();
    let refused = mirror.exclusive(&mut w.thread.cx(), &w.mm, 515, 1);
    assert_eq!(refused, Err(Errno::EOPNOTSUPP));
    assert_eq!((w.told().as_str(), w.get(512)), ("", Ok(7)));
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
