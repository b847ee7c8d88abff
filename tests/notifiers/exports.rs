//! A driver that has frames by number is told of each before it is given up, whatever takes its
//! last mapping; and the frame that it gets is the page's own.

use crate::common::{
    PAGE, RW, World, at,
    objects::{self, swapping},
};
use emmu::{
    FaultError, Machine, Mm,
    addr::Pfn,
    ctx::{CallCx, Cx, Sleepable, rank},
    file::File,
    mm::{Advice, ForkMode, MapFlags, MmapArgs, MremapArgs, MremapFlags, Prot, RemapMode},
    notifier::Access,
    rmap::{ExportRegistration, RmapNotifier},
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Barrier, Mutex, Weak,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

/// Writes down what it is told, with the references and mappings that the frame had then.
#[derive(Default)]
struct Exporter {
    machine: Mutex<Weak<Machine>>,
    told: Mutex<Vec<(Pfn, u32)>>,
    panics: AtomicBool,
}

impl RmapNotifier for Exporter {
    fn invalidate_frame(&self, _: Cx<'_, rank::Folio, Sleepable>, pfn: Pfn) {
        let machine = self.machine.lock().unwrap().upgrade().expect("it runs");
        let mem = machine.mem();
        assert!(mem.refcount(pfn) > 0, "{pfn:?} was given up before");
        self.told.lock().unwrap().push((pfn, mem.mapcount(pfn)));
        assert!(!self.panics.load(SeqCst), "told not to");
    }
}

struct Exports {
    w: World,
    exporter: Arc<Exporter>,
    registration: ExportRegistration,
    /// Files are kept by this, until the end.
    file: Option<Arc<File>>,
}

impl Exports {
    fn new() -> Self {
        let w = swapping(2048, 256);
        let exporter = Arc::new(Exporter::default());
        *exporter.machine.lock().unwrap() = Arc::downgrade(&w.machine);
        let registration = w.machine.register_exports(exporter.clone());
        Self {
            w,
            exporter,
            registration,
            file: None,
        }
    }
    /// With sixteen pages of private memory.
    fn private() -> Self {
        let mut x = Self::new();
        x.w.map(0, 16, RW);
        x.w.fill(0, 16);
        x
    }
    /// With eight pages of a file, mapped.
    fn mapped(file: fn(&mut World) -> Arc<File>, kind: MapFlags) -> (Self, Weak<File>) {
        let mut x = Self::new();
        let file = file(&mut x.w);
        x.w.map_file(0, 8, &file, 0, kind);
        x.w.fill(0, 8);
        let weak = Arc::downgrade(&file);
        x.file = Some(file);
        (x, weak)
    }
    fn shared(file: fn(&mut World) -> Arc<File>) -> (Self, Weak<File>) {
        Self::mapped(file, MapFlags::SHARED)
    }
    fn cx(&mut self) -> CallCx<'_> {
        self.w.thread.cx()
    }
    /// Exports a page of the world's address space.
    fn export(&mut self, n: u64, access: Access) -> Pfn {
        self.try_export(n, access).expect("mapped for that")
    }
    fn try_export(&mut self, n: u64, access: Access) -> Result<Pfn, FaultError> {
        let mm = Arc::clone(&self.w.mm);
        export(&mm, &mut self.cx(), n, access)
    }
    /// What was told since the last call: frames, and how often each was mapped then.
    fn told(&self) -> Vec<(Pfn, u32)> {
        std::mem::take(&mut self.exporter.told.lock().unwrap())
    }
    /// Exports pages 4 and 5, does something, and looks that the driver was told of both: their
    /// mappings were gone.
    fn gone_by(mut self, work: impl FnOnce(&mut World)) {
        let pages = [4, 5].map(|n| self.export(n, Access::Write));
        work(&mut self.w);
        let mut told = self.told();
        told.sort_by_key(|(pfn, _)| pages.iter().position(|p| p == pfn));
        assert_eq!(told, pages.map(|pfn| (pfn, 0)));
        self.end();
    }
    fn end(mut self) {
        let mm = Arc::clone(&self.w.mm);
        mm.exit(&mut self.cx());
        self.told();
        self.file = None;
        self.w
            .machine
            .unregister_exports(&mut self.w.thread.cx(), self.registration);
        self.w.end();
    }
}

fn export(mm: &Mm, cx: &mut CallCx<'_>, n: u64, access: Access) -> Result<Pfn, FaultError> {
    mm.with_locked_frame(cx, at(n), access, |_, locked| {
        locked.export();
        locked.pfn()
    })
}
fn kept(file: &Weak<File>) -> Arc<File> {
    file.upgrade().expect("the world keeps it")
}
fn advise(w: &mut World, from: u64, n: u64, advice: Advice) {
    w.mm.madvise(&mut w.thread.cx(), at(from), n * PAGE, advice)
        .unwrap();
}
fn remap(w: &mut World, from: u64, n: u64, to: u64) {
    let args = MremapArgs {
        addr: at(from),
        old_len: n * PAGE,
        new_len: n * PAGE,
        flags: MremapFlags::MAYMOVE | MremapFlags::FIXED,
        new_addr: at(to),
    };
    w.mm.mremap(&mut w.thread.cx(), args).unwrap();
}

#[test]
fn unmapping() {
    Exports::private().gone_by(|w| {
        w.mm.munmap(&mut w.thread.cx(), at(0), 16 * PAGE).unwrap();
    });
    Exports::private().gone_by(|w| w.map(4, 2, RW));
    Exports::private().gone_by(|w| {
        w.map(100, 4, RW);
        remap(w, 100, 4, 3);
    });
    Exports::private().gone_by(|w| {
        let args = MremapArgs {
            addr: at(0),
            old_len: 16 * PAGE,
            new_len: 2 * PAGE,
            flags: MremapFlags::empty(),
            new_addr: 0,
        };
        w.mm.mremap(&mut w.thread.cx(), args).unwrap();
    });
    Exports::private().gone_by(|w| w.mm.exit(&mut w.thread.cx()));
}

#[test]
fn a_heap_that_shrinks() {
    let mut x = Exports::new();
    let mm = Arc::clone(&x.w.mm);
    mm.set_start_brk(&mut x.cx(), at(0)).unwrap();
    mm.brk(&mut x.cx(), at(16));
    x.w.fill(0, 16);
    x.gone_by(|w| _ = w.mm.brk(&mut w.thread.cx(), at(2)));
}

#[test]
fn advice() {
    Exports::private().gone_by(|w| advise(w, 4, 2, Advice::DontNeed));
    Exports::private().gone_by(|w| advise(w, 4, 2, Advice::GuardInstall));
    Exports::private().gone_by(|w| advise(w, 0, 16, Advice::PageOut));
    Exports::private().gone_by(|w| {
        advise(w, 0, 16, Advice::Free);
        advise(w, 0, 16, Advice::PageOut);
    });
}

#[test]
fn collapse() {
    let mut x = Exports::new();
    x.w.map(0, 512, RW);
    x.w.fill(0, 512);
    x.gone_by(|w| advise(w, 0, 512, Advice::Collapse));
}

#[test]
fn migration_and_reclaim() {
    Exports::private().gone_by(|w| {
        for n in [4, 5] {
            let new = w.mm.migrate(&mut w.thread.cx(), at(n)).unwrap();
            assert!(new.is_some());
        }
    });
    Exports::private().gone_by(|w| _ = w.machine.reclaim_all(&mut w.thread.cx()));
}

/// Pages that hold nothing but zeros go when their huge page is split.
#[test]
fn unused_pages_of_a_huge_page() {
    let mut x = Exports::new();
    x.w.map(0, 512, RW);
    advise(&mut x.w, 0, 512, Advice::HugePage);
    x.w.put(0, 1);
    let unused = x.export(7, Access::Write);
    advise(&mut x.w, 0, 1, Advice::PageOut);
    assert_eq!(x.told(), [(unused, 0)]);
    x.end();
}

#[test]
fn copying_on_write_and_merging() {
    // A private page of a file: the driver has the copy.
    let (mut x, file) = Exports::shared(|w| objects::shmem(w, 8));
    let file = kept(&file);
    x.w.map_file(20, 8, &file, 0, MapFlags::PRIVATE);
    let cached = x.export(4, Access::Read);
    let own = x.export(24, Access::Read);
    assert_ne!(cached, own);
    x.w.put(24, 9);
    assert_eq!((x.told(), x.w.get(24), x.w.get(4)), (vec![], Ok(9), Ok(1)));
    let again = x.export(24, Access::Read);
    assert_eq!(again, own, "written in place");
    drop(file);
    x.end();

    let mut x = Exports::private();
    let (first, other) = (x.export(4, Access::Write), x.export(5, Access::Write));
    let (machine, mm) = (Arc::clone(&x.w.machine), Arc::clone(&x.w.mm));
    assert_eq!(
        machine.merge_same_pages(&mut x.cx(), &[(&mm, at(4)), (&mm, at(5))]),
        1
    );
    // Each is told when it is protected, mapped still: so nobody writes to what is being compared.
    assert_eq!(x.told(), [(other, 1), (first, 1)]);
    x.end();
}

#[test]
fn forks() {
    for mode in [ForkMode::Copy, ForkMode::Share] {
        let mut x = Exports::private();
        let pages = [4, 5].map(|n| x.export(n, Access::Write));
        let mm = Arc::clone(&x.w.mm);
        let child = mm.fork_with(&mut x.cx(), mode).unwrap();
        // They are shared now, and the driver may not write to them any more.
        assert_eq!(x.told(), pages.map(|pfn| (pfn, 2)), "{mode:?}");
        child.exit(&mut x.cx());
        assert_eq!(x.told(), []);
        x.end();
    }
}

/// What was exported before is told by the fork; what is exported after is a copy, so that neither
/// process writes to a frame which a driver has for the other.
#[test]
fn what_a_driver_writes_after_a_fork_is_seen_by_one_process() {
    let mut x = Exports::private();
    let mm = Arc::clone(&x.w.mm);
    let before = x.export(4, Access::Write);
    let child = mm.fork(&mut x.cx()).unwrap();
    assert_eq!(x.told(), [(before, 2)]);
    let write = |_: Cx<'_, rank::Folio, Sleepable>, locked: &emmu::frame::FrameLock<'_>| {
        locked.export();
        assert!(locked.write(0, &[77]));
        locked.pfn()
    };
    let after = mm
        .with_locked_frame(&mut x.cx(), at(4), Access::Write, write)
        .unwrap();
    assert_ne!(after, before);
    assert_eq!(child.load(&mut x.cx(), at(4)), Ok(1));
    assert_eq!(x.w.get(4), Ok(77));
    child.exit(&mut x.cx());
    x.end();
}

#[test]
fn protection() {
    for prot in [Prot::READ, Prot::empty()] {
        let mut x = Exports::private();
        let pages = [4, 5].map(|n| x.export(n, Access::Write));
        let mm = Arc::clone(&x.w.mm);
        mm.mprotect(&mut x.cx(), at(0), 16 * PAGE, prot).unwrap();
        assert_eq!(x.told(), pages.map(|pfn| (pfn, 1)));
        x.end();
    }
}

#[test]
fn files_that_are_cut_or_punched() {
    for file in [
        (|w| objects::shmem(w, 8)) as fn(&mut World) -> _,
        |w| objects::disk(w, 8).1,
        |w| objects::xip(w, 8).1,
    ] {
        let (x, cut) = Exports::shared(file);
        x.gone_by(|w| kept(&cut).truncate(w.thread.cx(), 4 * PAGE).unwrap());
        let (x, cut) = Exports::shared(file);
        x.gone_by(|w| {
            let punched = kept(&cut);
            punched
                .punch_hole(w.thread.cx(), 4 * PAGE, 2 * PAGE)
                .unwrap();
        });
        let (x, _file) = Exports::shared(file);
        x.gone_by(|w| advise(w, 4, 2, Advice::Remove));
        let (x, _file) = Exports::shared(file);
        x.gone_by(|w| w.mm.munmap(&mut w.thread.cx(), at(0), 8 * PAGE).unwrap());
        let (x, _file) = Exports::shared(file);
        x.gone_by(|w| {
            w.mm.remap_file_pages(
                &mut w.thread.cx(),
                at(4),
                2 * PAGE,
                Prot::empty(),
                0,
                MapFlags::empty(),
            )
            .unwrap();
        });
    }
}

/// Private copies go with what they were copies of.
#[test]
fn private_copies_of_what_is_cut_off() {
    let (x, cut) = Exports::mapped(|w| objects::shmem(w, 8), MapFlags::PRIVATE);
    x.gone_by(|w| {
        let cut = kept(&cut);
        cut.truncate(w.thread.cx(), 2 * PAGE).unwrap();
    });
}

#[test]
fn nonlinear_mappings() {
    let nonlinear = |w: &mut World| {
        let mm = Arc::clone(&w.mm);
        mm.set_remap_mode(&mut w.thread.cx(), RemapMode::Nonlinear);
        objects::shmem(w, 8)
    };
    let (x, _file) = Exports::shared(nonlinear);
    x.gone_by(|w| {
        w.mm.remap_file_pages(
            &mut w.thread.cx(),
            at(4),
            2 * PAGE,
            Prot::empty(),
            0,
            MapFlags::empty(),
        )
        .unwrap();
    });
}

#[test]
fn writeback() {
    let (mut x, file) = Exports::shared(|w| objects::disk(w, 8).1);
    let page = x.export(4, Access::Write);
    let file = kept(&file);
    file.sync(x.cx()).unwrap();
    assert_eq!(x.told(), [(page, 1)]);
    drop(file);
    x.end();
}

/// The sparse page of a hole, when the hole is filled.
#[test]
fn a_hole_that_is_filled() {
    let mut x = Exports::new();
    let (object, file) = objects::xip(&x.w, 8);
    x.w.map_file(0, 8, &file, 0, MapFlags::SHARED);
    let sparse = x.export(4, Access::Read);
    x.w.put(4, 1);
    assert_eq!(x.told(), [(sparse, 0)]);
    drop((file, object));
    x.end();
}

#[test]
fn another_mapping_keeps_a_frame() {
    let (mut x, file) = Exports::shared(|w| objects::shmem(w, 8));
    let file = kept(&file);
    x.w.map_file(20, 8, &file, 0, MapFlags::SHARED);
    x.w.fill(20, 8);
    let page = x.export(4, Access::Write);
    let mm = Arc::clone(&x.w.mm);
    mm.munmap(&mut x.cx(), at(0), 8 * PAGE).unwrap();
    assert_eq!(x.told(), [], "it is mapped at 24");
    remap(&mut x.w, 20, 8, 40);
    assert_eq!(x.told(), [], "it is mapped at 44");
    mm.munmap(&mut x.cx(), at(40), 8 * PAGE).unwrap();
    assert_eq!(x.told(), [(page, 0)]);
    drop(file);
    x.end();
}

/// A frame that nobody could be told of stays until somebody can.
#[test]
fn windows_of_ones_own_and_spaces_that_are_dropped() {
    let mut x = Exports::private();
    let page = x.export(4, Access::Write);
    let mm = Arc::clone(&x.w.mm);
    let mut cx = x.w.thread.cx();
    let mut g = mm.lock_shared(&mut cx);
    let mut lease = g.lease();
    let range = World::pages(4, 5);
    let mut window = lease.window(range, emmu::notifier::Event::Clear);
    window.for_each_leaf(|txn| txn.for_each(|slot| drop(slot.clear())));
    window.close();
    drop(g);
    let mem = Arc::clone(x.w.machine.mem());
    assert_eq!(
        (x.told(), mem.refcount(page), mem.mapcount(page)),
        (vec![], 1, 0)
    );
    advise(&mut x.w, 0, 1, Advice::DontNeed);
    assert_eq!((x.told(), mem.refcount(page)), (vec![(page, 0)], 0));

    let other = Mm::new(&x.w.machine);
    let args = MmapArgs::anonymous(PAGE).fixed(at(0));
    other.mmap(&mut x.cx(), &args).unwrap();
    let page = export(&other, &mut x.cx(), 0, Access::Write).unwrap();
    drop(other);
    assert_eq!((x.told(), mem.refcount(page)), (vec![], 1));
    advise(&mut x.w, 0, 1, Advice::DontNeed);
    assert_eq!((x.told(), mem.refcount(page)), (vec![(page, 0)], 0));
    x.end();
}

#[test]
fn drivers_that_panic() {
    let mut x = Exports::private();
    let second = Arc::new(Exporter::default());
    *second.machine.lock().unwrap() = Arc::downgrade(&x.w.machine);
    let registration = x.w.machine.register_exports(second.clone());
    let pages = [4, 5].map(|n| x.export(n, Access::Write));
    x.exporter.panics.store(true, SeqCst);
    let mm = Arc::clone(&x.w.mm);
    let work = AssertUnwindSafe(|| mm.munmap(&mut x.cx(), at(0), 8 * PAGE));
    catch_unwind(work).unwrap_err();
    // Everybody was told of everything, and it is unmapped.
    let all = pages.map(|pfn| (pfn, 0));
    assert_eq!(
        (x.told().as_slice(), &**second.told.lock().unwrap()),
        (&all[..], &all[..])
    );
    assert_eq!(x.w.spans(), [(8, 16)]);
    x.export(9, Access::Write);
    catch_unwind(AssertUnwindSafe(|| mm.exit(&mut x.cx()))).unwrap_err();
    x.w.machine
        .unregister_exports(&mut x.w.thread.cx(), registration);
    x.end();
}

#[test]
fn a_page_of_a_mapping_that_cannot_be_written() {
    let mut x = Exports::new();
    x.w.map(0, 16, Prot::READ);
    let mm = Arc::clone(&x.w.mm);
    // Never touched, and showing the zero page.
    assert_eq!(x.w.get(1), Ok(0));
    for n in [0, 1] {
        let pfn = x.export(n, Access::Read);
        assert_ne!(pfn, x.w.machine.mem().zero_pfn());
        assert_eq!(x.w.get(n), Ok(0));
        assert!(x.try_export(n, Access::Write).is_err());
        mm.store(&mut x.cx(), at(n), 1).unwrap_err();
        // What is written later is written to it: the driver sees it.
        mm.mprotect(&mut x.cx(), at(n), PAGE, RW).unwrap();
        x.w.put(n, 7);
        let read = |_: Cx<'_, rank::Folio, Sleepable>, locked: &emmu::frame::FrameLock<'_>| {
            let mut byte = [0];
            locked.read(0, &mut byte);
            (locked.pfn(), byte[0])
        };
        let now = mm.with_locked_frame(&mut x.cx(), at(n), Access::Read, read);
        assert_eq!(now, Ok((pfn, 7)));
        assert_eq!(x.told(), []);
    }
    x.w.map(20, 1, Prot::empty());
    assert!(matches!(
        x.try_export(20, Access::Read),
        Err(FaultError::Denied(_))
    ));
    assert!(matches!(
        x.try_export(30, Access::Read),
        Err(FaultError::NotMapped(_))
    ));
    x.end();
}

#[test]
fn a_huge_page_that_cannot_be_written() {
    let mut x = Exports::new();
    x.w.map(0, 1024, RW);
    advise(&mut x.w, 0, 1024, Advice::HugePage);
    x.w.put(5, 1);
    assert_eq!(x.w.get(600), Ok(0), "the huge zero page");
    let mm = Arc::clone(&x.w.mm);
    mm.mprotect(&mut x.cx(), at(0), 1024 * PAGE, Prot::READ)
        .unwrap();
    for (n, byte) in [(5, 1), (600, 0)] {
        x.export(n, Access::Read);
        assert_eq!(x.w.get(n), Ok(byte));
        assert!(matches!(
            x.try_export(n, Access::Write),
            Err(FaultError::Denied(_))
        ));
    }
    let child = mm.fork(&mut x.cx()).unwrap();
    x.told();
    // Others have it now.
    let own = x.export(5, Access::Read);
    assert_ne!(export(&child, &mut x.cx(), 5, Access::Read), Ok(own));
    assert_eq!(child.load(&mut x.cx(), at(5)), Ok(1));
    child.exit(&mut x.cx());
    x.end();
}

/// The shared zero page is not counted: it cannot be used up.
#[test]
fn the_zero_page_is_never_exported() {
    let mut x = Exports::new();
    x.w.map(0, 64, Prot::READ);
    for n in 0..64 {
        assert_eq!(x.w.get(n), Ok(0));
        x.export(n, Access::Read);
    }
    assert_eq!(x.w.machine.mem().in_use(), 64);
    let mm = Arc::clone(&x.w.mm);
    mm.munmap(&mut x.cx(), at(0), 64 * PAGE).unwrap();
    assert_eq!((x.told().len(), x.w.machine.mem().in_use()), (64, 0));
    x.end();
}

#[test]
fn no_call_of_a_driver_runs_once_it_is_unregistered() {
    struct Slow {
        called: Barrier,
        returned: AtomicBool,
    }
    impl RmapNotifier for Slow {
        fn invalidate_frame(&self, _: Cx<'_, rank::Folio, Sleepable>, _: Pfn) {
            self.called.wait();
            // Time for a `unregister_exports` that does not wait.
            thread::sleep(Duration::from_millis(50));
            self.returned.store(true, SeqCst);
        }
    }
    let mut x = Exports::private();
    let slow = Arc::new(Slow {
        called: Barrier::new(2),
        returned: AtomicBool::new(false),
    });
    let registration = x.w.machine.register_exports(slow.clone());
    x.export(3, Access::Write);
    let mm = Arc::clone(&x.w.mm);
    thread::scope(|s| {
        s.spawn(|| {
            let mut thread = mm.machine().enter().unwrap();
            mm.munmap(&mut thread.cx(), at(3), PAGE).unwrap();
        });
        slow.called.wait();
        x.w.machine
            .unregister_exports(&mut x.w.thread.cx(), registration);
        assert!(slow.returned.load(SeqCst), "a call runs");
    });
    x.end();
}

#[test]
fn a_driver_that_is_registered_twice_is_unregistered_once_at_a_time() {
    let mut x = Exports::private();
    let again = x.w.machine.register_exports(x.exporter.clone());
    x.w.machine.unregister_exports(&mut x.w.thread.cx(), again);
    let pfn = x.export(3, Access::Write);
    let mm = Arc::clone(&x.w.mm);
    mm.munmap(&mut x.cx(), at(3), PAGE).unwrap();
    assert_eq!(x.told(), [(pfn, 0)]);
    x.end();
}
