//! Devices with memory at the edges: drivers that panic or go, machines that are not theirs, ranges
//! at the ends of the space, mappings that change below the pages.

use crate::common::{
    PAGE, RW, World, at,
    calls::remap,
    mirror::{Board, There, bytes, fill, pages, world_of},
    objects::shmem,
};
use emmu::{
    Errno, Machine, MachineConfig, Mm,
    addr::{TASK_SIZE, Vpn, VpnRange},
    ctx::{CallbackCx, Sleepable},
    error::{ExclusiveError, FaultError, MigrateError},
    frame::{DeviceKind, DeviceMemory},
    mm::{
        Advice, DevicePages, ForkMode, MapFlags, MigrateArgs, MigrateSelect, MigrateTo, MmapArgs,
        MremapFlags, Prot, Pte, Stays,
    },
    notifier::{Ack, ExternalMmu, Gate, Invalidation, OrderedStore},
};
use std::{
    hint::spin_loop,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

/// The page stays on the device, with its rights, and comes home when the driver can copy again.
#[test]
fn a_driver_that_panics_leaves_the_page_on_the_device() {
    let mut t = There::new(2);
    let child = t.w.fork();
    let ways: [fn(&mut There); 3] = [
        |t| assert_eq!(t.w.get(0), Ok(1)),
        |t| {
            let (cx, select) = (&mut t.w.thread.cx(), MigrateSelect::DEVICE_PRIVATE);
            let home = (0, 2);
            drop(
                t.mirror
                    .migrate(cx, &t.w.mm, home, select, MigrateTo::System),
            );
        },
        |t| {
            let _left =
                t.w.machine
                    .evict_device(&mut t.w.thread.cx(), &t.board.memory);
        },
    ];
    t.board.panics.store(true, Ordering::Relaxed);
    let used = t.w.machine.mem().in_use();
    for way in ways {
        catch_unwind(AssertUnwindSafe(|| way(&mut t))).expect_err("the driver's panic");
        assert_eq!((t.there(0), t.there(1)), (Some(false), Some(false)));
        assert_eq!(t.w.machine.mem().in_use(), used, "a frame is left");
        assert_eq!(t.board.memory.in_use(), 2);
        t.w.check_rmap();
    }
    t.board.panics.store(false, Ordering::Relaxed);
    assert_eq!(bytes(&mut t.w, 0, 2), [1, 2]);
    assert_eq!(t.w.inside(&child, |w| w.get(1)), Ok(2));
    t.w.reap(&child);
    t.end();
}

/// The device stays, and takes pages as before; its registration is lost with the panic.
#[test]
fn a_panic_in_the_removal_leaves_the_device_in_use() {
    let t = There::new(1);
    let There {
        mut w,
        board,
        mirror,
        registration,
    } = t;
    board.panics.store(true, Ordering::Relaxed);
    let removed = catch_unwind(AssertUnwindSafe(|| {
        w.machine.remove_device(&mut w.thread.cx(), registration)
    }));
    assert!(removed.is_err(), "the driver's panic");
    board.panics.store(false, Ordering::Relaxed);
    assert_eq!(w.get(0), Ok(1));
    let (cx, select) = (&mut w.thread.cx(), MigrateSelect::SYSTEM);
    let again = mirror.migrate(cx, &w.mm, (0, 1), select, MigrateTo::Device);
    assert_eq!(again.unwrap().moved(), 1);
    w.mm.exit(&mut w.thread.cx());
    assert_eq!(board.memory.in_use(), 0);
}

/// What says where pages go may panic: all stay where they are.
#[test]
fn a_panic_of_the_caller_puts_pages_back() {
    let mut t = There::at_home(3);
    let args = MigrateArgs {
        memory: &t.board.memory,
        range: pages(0, 3),
        select: MigrateSelect::SYSTEM,
    };
    let mut asked = 0;
    let migrates = || {
        t.w.mm.migrate_vma(&mut t.w.thread.cx(), &args, |_| {
            asked += 1;
            assert!(asked < 3, "a caller's panic");
            MigrateTo::Device
        })
    };
    catch_unwind(AssertUnwindSafe(migrates)).expect_err("the panic");
    assert_eq!(t.board.memory.in_use(), 0);
    assert!(matches!(t.w.pte(2), Pte::Present { write: true, .. }));
    assert_eq!(bytes(&mut t.w, 0, 3), [1, 2, 3]);
    t.end();
}

/// A driver that has its memory before the machine knows the driver cannot send pages there: no
/// fault could bring them home.
#[test]
fn no_page_goes_to_a_device_that_is_being_added() {
    let mut w = world_of(1, RW, 0);
    fill(&mut w, 0, 1);
    struct Early(Mutex<Option<DeviceMemory>>);
    impl DevicePages for Early {}
    let machine = Arc::clone(&w.machine);
    let early = |memory: &DeviceMemory, w: &mut World| {
        let args = MigrateArgs {
            memory,
            range: pages(0, 1),
            select: MigrateSelect::SYSTEM,
        };
        let done =
            w.mm.migrate_vma(&mut w.thread.cx(), &args, |_| MigrateTo::Device);
        done.unwrap().pages[0].1
    };
    let (device, registration) = machine
        .add_device(DeviceKind::Private, 8, |memory| {
            assert_eq!(early(&memory, &mut w), Err(Stays::NoFrame));
            Arc::new(Early(Mutex::new(Some(memory))))
        })
        .unwrap();
    let panics = catch_unwind(AssertUnwindSafe(|| {
        machine.add_device(DeviceKind::Private, 8, |memory| -> Arc<Early> {
            let _stays = early(&memory, &mut w);
            panic!("a driver that cannot begin")
        })
    }));
    assert!(panics.is_err());
    assert_eq!(w.get(0), Ok(1));

    // The memory may go while a page is there: the machine keeps driver and frame.
    let memory = device.0.lock().unwrap().take().unwrap();
    assert_eq!(early(&memory, &mut w), Ok(()));
    drop(memory);
    assert_eq!(w.get(0), Ok(1));
    machine
        .remove_device(&mut w.thread.cx(), registration)
        .expect("no page is there");
    w.end();
}

#[test]
fn a_device_is_of_one_machine() {
    let mut t = There::new(1);
    let other = Machine::new(MachineConfig::default());
    let mm = Mm::new(&other);
    let (theirs, registration) = {
        let build = |memory| Arc::new(Plain(memory));
        other.add_device(DeviceKind::Private, 8, build).unwrap()
    };
    let args = MigrateArgs {
        memory: &theirs.0,
        range: pages(0, 1),
        select: MigrateSelect::SYSTEM,
    };
    let cx = &mut t.w.thread.cx();
    let wrong = t.w.mm.migrate_vma(cx, &args, |_| MigrateTo::Device);
    assert_eq!(wrong, Err(MigrateError::WrongMachine));
    assert_eq!(t.w.machine.evict_device(cx, &theirs.0), 0);
    // A registration of another machine is given back, and both devices stay.
    let registration = t.w.machine.remove_device(cx, registration);
    let registration = registration.expect_err("it is of another machine");
    assert_eq!(t.w.get(0), Ok(1));
    t.end();
    let mut thread = other.enter().unwrap();
    let mut cx = thread.cx();
    other.remove_device(&mut cx, registration).expect("empty");
    mm.exit(&mut cx);
}

struct Plain(DeviceMemory);
impl DevicePages for Plain {}

#[test]
fn ranges_at_the_ends_of_the_space_are_refused() {
    let mut t = There::at_home(1);
    let top = TASK_SIZE / PAGE;
    let last = Vpn(u64::MAX);
    for range in [
        VpnRange::ALL,
        VpnRange::single(Vpn(0)),
        VpnRange::single(Vpn(top)),
        VpnRange::new(Vpn(top - 1), Vpn(top + 1)).unwrap(),
        VpnRange::new(Vpn(1 << 52), last).unwrap(),
        VpnRange::new(pages(0, 1).start(), last).unwrap(),
    ] {
        let args = MigrateArgs {
            memory: &t.board.memory,
            range,
            select: MigrateSelect::all(),
        };
        let refused =
            t.w.mm
                .migrate_vma(&mut t.w.thread.cx(), &args, |_| MigrateTo::Device);
        assert_eq!(refused.unwrap_err().errno(), Errno::EINVAL, "{range:?}");
    }
    for addr in [0, TASK_SIZE, u64::MAX, 1 << 63] {
        let cx = &mut t.w.thread.cx();
        let refused = t.w.mm.make_device_exclusive(cx, addr, None, |_, _| ());
        let unmapped = Err(ExclusiveError::Fault(FaultError::NotMapped(addr)));
        assert_eq!(refused, unmapped);
    }
    t.end();

    // The last page of the space goes and comes home.
    let mut t = There::at_home(0);
    let cx = &mut t.w.thread.cx();
    let addr = TASK_SIZE - PAGE;
    let map = MmapArgs::anonymous(PAGE).fixed(addr);
    t.w.mm.mmap(cx, &map).unwrap();
    t.w.mm.store(cx, addr, 7).unwrap();
    let args = MigrateArgs {
        memory: &t.board.memory,
        range: VpnRange::single(Vpn::containing(addr)),
        select: MigrateSelect::SYSTEM,
    };
    let moved = t.w.mm.migrate_vma(cx, &args, |_| MigrateTo::Device);
    assert_eq!(moved.unwrap().moved(), 1);
    assert_eq!(t.w.mm.load(cx, addr), Ok(7));
    t.end();
}

#[test]
fn a_machine_has_no_more_device_frames_than_numbers() {
    for device_frames in [u32::MAX, (1 << 27) + 1] {
        let config = MachineConfig {
            device_frames,
            ..MachineConfig::default()
        };
        let refused = Machine::try_new(config).expect_err("too many");
        assert_eq!(refused.kind(), std::io::ErrorKind::InvalidInput);
    }
    let mut w = world_of(0, RW, 0);
    let build = |memory| Arc::new(Plain(memory));
    let none = w.machine.add_device(DeviceKind::Private, u32::MAX, build);
    assert_eq!(none.map(drop).unwrap_err().errno(), Errno::ENOMEM);
    // A device without frames takes no page, and hides no other device.
    let (board, registration) = Board::add(&w, 4);
    let (empty, gone) = w.machine.add_device(DeviceKind::Private, 0, build).unwrap();
    w.map(0, 1, RW);
    w.put(0, 7);
    for (memory, moves) in [(&empty.0, 0), (&board.memory, 1)] {
        let args = MigrateArgs {
            memory,
            range: pages(0, 1),
            select: MigrateSelect::SYSTEM,
        };
        let moved =
            w.mm.migrate_vma(&mut w.thread.cx(), &args, |_| MigrateTo::Device);
        assert_eq!(moved.unwrap().moved(), moves);
    }
    assert_eq!(w.get(0), Ok(7));
    let cx = &mut w.thread.cx();
    w.machine.remove_device(cx, gone).expect("empty");
    w.machine.remove_device(cx, registration).expect("empty");
    w.end();
}

/// Page tables that a fork shares: a page goes for both, comes home for both, and what one writes
/// then is its own.
#[test]
fn pages_of_shared_tables_go_and_come_home() {
    for from_there in [false, true] {
        let mut t = match from_there {
            true => There::new(3),
            false => There::at_home(3),
        };
        let child =
            t.w.mm
                .fork_with(&mut t.w.thread.cx(), ForkMode::Share)
                .unwrap();
        if !from_there {
            assert_eq!(t.go(0, 3), [Ok(()); 3]);
        }
        assert_eq!(t.board.memory.in_use(), 3);
        t.w.put(0, 8);
        assert_eq!(t.w.inside(&child, |w| (w.get(0), w.get(1))), (Ok(1), Ok(2)));
        t.w.inside(&child, |w| w.put(1, 9));
        assert_eq!(bytes(&mut t.w, 0, 3), [8, 2, 3]);
        t.w.check_rmap();
        t.w.inside(&child, World::check_rmap);
        t.w.reap(&child);
        t.end();
    }
}

/// A locked page that was on a device stays in memory once it is home.
#[test]
fn a_locked_page_is_locked_at_home_again() {
    let mut t = There::at_home(2);
    t.w.lock(0, 1).unwrap();
    assert_eq!([t.go(0, 1), t.go(1, 1)].concat(), [Ok(()), Ok(())]);
    assert_eq!(bytes(&mut t.w, 0, 2), [1, 2]);
    let cx = &mut t.w.thread.cx();
    t.w.machine.reclaim_all(cx);
    t.w.machine.reclaim_all(cx);
    assert!(
        matches!(t.w.pte(0), Pte::Present { .. }),
        "{:?}",
        t.w.pte(0)
    );
    assert!(matches!(t.w.pte(1), Pte::Swap(_)), "{:?}", t.w.pte(1));
    t.end();
}

/// The end of a file takes private copies with it, also those on a device; a hole does not.
#[test]
fn a_file_that_is_cut_takes_copies_from_the_device() {
    let mut t = There::at_home(0);
    let file = shmem(&mut t.w, 3);
    t.w.map_file(0, 3, &file, 0, MapFlags::PRIVATE);
    fill(&mut t.w, 0, 3);
    assert_eq!(t.go(0, 3), [Ok(()); 3]);
    let cx = t.w.thread.cx();
    file.punch_hole(cx, 0, PAGE).unwrap();
    assert_eq!(t.board.memory.in_use(), 3);
    file.truncate(t.w.thread.cx(), PAGE).unwrap();
    assert_eq!(t.board.memory.in_use(), 1);
    assert_eq!(t.w.get(1), Err(FaultError::Beyond(at(1))));
    assert_eq!(t.w.get(0), Ok(1));
    drop(file);
    t.end();
}

/// `mremap` moves the pages of a device, and leaves holes behind with `MREMAP_DONTUNMAP`.
#[test]
fn pages_move_with_their_mapping_and_leave_holes() {
    let mut t = There::new(2);
    let keep = MremapFlags::MAYMOVE | MremapFlags::FIXED | MremapFlags::DONTUNMAP;
    t.w.mremap(remap(0, 2, 2, keep, 8)).unwrap();
    assert_eq!((t.there(0), t.there(8)), (None, Some(true)));
    t.w.protect(8, 1, Prot::empty()).unwrap();
    t.w.protect(8, 1, Prot::READ).unwrap();
    assert_eq!((t.w.get(0), t.w.get(8), t.w.get(9)), (Ok(0), Ok(1), Ok(2)));
    t.w.advise(8, 2, Advice::DontNeed).unwrap();
    assert_eq!(t.board.memory.in_use(), 0);
    t.end();
}

/// The driver is asked to copy pages home, and never from the device to the device.
#[test]
fn a_page_on_the_device_does_not_go_there() {
    for kind in [DeviceKind::Private, DeviceKind::Coherent] {
        let mut t = There::with(kind, 2);
        assert_eq!(t.go(0, 2), [Ok(()), Ok(())]);
        let (cx, all) = (&mut t.w.thread.cx(), MigrateSelect::all());
        let done = t
            .mirror
            .migrate(cx, &t.w.mm, (0, 2), all, MigrateTo::Device);
        let stays = done.unwrap().pages.into_iter().map(|(_, why)| why);
        assert!(stays.eq([Err(Stays::Driver); 2]));
        assert_eq!(t.board.home.load(Ordering::Relaxed), 0);
        assert_eq!(bytes(&mut t.w, 0, 2), [1, 2]);
        t.end();
    }
}

/// A driver in whose first window another thread gives up page 0.
struct GivesUp {
    gate: Gate<OrderedStore<Vpn>, (), Sleepable>,
    mm: Weak<Mm>,
    armed: AtomicBool,
    /// The page is gone, but for the reference of its fault.
    given_up: AtomicBool,
}

impl ExternalMmu for GivesUp {
    fn invalidate_start<'i>(&self, cx: CallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        if self.armed.swap(false, Ordering::Relaxed) {
            let mm = self.mm.upgrade().expect("it opened the window");
            let gives_up = move || {
                let mut thread = mm.machine().enter().unwrap();
                mm.madvise(&mut thread.cx(), at(0), PAGE, Advice::DontNeed)
            };
            std::thread::spawn(gives_up).join().unwrap().unwrap();
            self.given_up.store(true, Ordering::Release);
        }
        self.gate.exclude(cx, inv, |(), _, _| ())
    }
}

/// The fault that wanted to bring the page home finds nothing, not even the device.
#[test]
fn a_device_goes_with_the_page_that_a_fault_wants() {
    for _ in 0..200 {
        let mut t = There::new(1);
        let mm = Arc::downgrade(&t.w.mm);
        let gives_up = |seat| {
            Arc::new(GivesUp {
                gate: Gate::new(seat, OrderedStore::default(), ()),
                mm,
                armed: AtomicBool::new(true),
                given_up: AtomicBool::new(false),
            })
        };
        let (driver, _stays) = t.w.mm.register(&mut t.w.thread.cx(), gives_up);
        let (machine, mut registration) = (Arc::clone(&t.w.machine), t.registration);
        let removes = move || {
            let mut thread = machine.enter().unwrap();
            let mut cx = thread.cx();
            while !driver.given_up.load(Ordering::Acquire) {
                spin_loop();
            }
            while let Err(again) = machine.remove_device(&mut cx, registration) {
                registration = again;
            }
        };
        let remover = std::thread::spawn(removes);
        assert_eq!(t.w.get(0), Ok(0));
        remover.join().unwrap();
        t.w.mm.exit(&mut t.w.thread.cx());
        assert_eq!(t.board.memory.in_use(), 0);
    }
}
