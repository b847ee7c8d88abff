//! A driver sleeps in its callback, for a window of an operation on some pages. Everybody else goes
//! on: faults, operations on other pages, drivers that come and leave, the epoch. Who wants these
//! pages waits, where Linux has him wait.

use crate::common::{PAGE, RW, World, at, driver::Driver, machine};
use emmu::{
    FaultError, Machine, MachineConfig, MemConfig, Mm,
    ctx::{CallCx, CallbackCx, Sleepable},
    error::MadviseError,
    mm::{Advice, MapFlags, MmapArgs, MremapArgs, MremapFlags, Prot},
    notifier::{Ack, ExternalMmu, Gate, Invalidation, OrderedStore, Retry, Seat},
};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc::{self, Receiver, Sender},
    },
    thread::{self, Scope},
    time::Duration,
};

/// What operations work on: 64 pages from page 0 on.
const A: u64 = 64;
/// Another mapping, of as many.
const B: u64 = 200;
/// Nothing is mapped here.
const C: u64 = 400;

/// A driver that, once armed, sleeps in its next callback until it is woken.
struct Sleeper {
    gate: Gate<OrderedStore<u64>, (), Sleepable>,
    armed: AtomicBool,
    asleep: Mutex<Sender<()>>,
    wake: Mutex<Receiver<()>>,
}

impl ExternalMmu for Sleeper {
    fn invalidate_start<'i>(&self, cx: CallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        if self.armed.swap(false, SeqCst) {
            self.asleep.lock().unwrap().send(()).unwrap();
            let _woken = self.wake.lock().unwrap().recv();
        }
        self.gate.exclude(cx, inv, |(), _, _| ())
    }
}

/// What was seen from outside while an operation's window slept.
struct Scene<'s, 'e> {
    mm: &'e Arc<Mm>,
    scope: &'s Scope<'s, 'e>,
}

fn map(cx: &mut CallCx<'_>, mm: &Mm, from: u64, n: u64) {
    let args = MmapArgs::anonymous(n * PAGE).fixed(at(from));
    mm.mmap(cx, &args).unwrap();
    (from..from + n).for_each(|p| mm.store(cx, at(p), 1).unwrap());
}

/// Runs `operation` on a thread of its own and, while its first window sleeps, what everybody else
/// does, then `inside`. None of it may wait for the operation: it would never return.
fn while_it_sleeps(
    prepare: impl FnOnce(&mut CallCx<'_>, &Mm),
    operation: impl FnOnce(&mut CallCx<'_>, &Mm) + Send,
    inside: impl for<'s, 'e> FnOnce(
        &mut CallCx<'_>,
        &Scene<'s, 'e>,
    ) -> Vec<thread::ScopedJoinHandle<'s, ()>>,
) {
    let machine = Machine::new(MachineConfig {
        memory: MemConfig {
            frames: 8192,
            swap: 64,
            ..MemConfig::default()
        },
        ..MachineConfig::default()
    });
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let mm = Mm::new(&machine);
    map(&mut cx, &mm, 0, A);
    map(&mut cx, &mm, B, 64);
    prepare(&mut cx, &mm);
    let (asleep, wait_asleep) = mpsc::channel();
    let (wake, woken) = mpsc::channel();
    let (sleeper, reg) = mm.register(&mut cx, |seat: Seat| {
        Arc::new(Sleeper {
            gate: Gate::new(seat, OrderedStore::default(), ()),
            armed: AtomicBool::new(true),
            asleep: Mutex::new(asleep),
            wake: Mutex::new(woken),
        })
    });
    let done = AtomicBool::new(false);
    thread::scope(|s| {
        // Dropped here also if something panics.
        let wake = wake;
        let (mm, done) = (&mm, &done);
        s.spawn(move || {
            let mut thread = mm.machine().enter().unwrap();
            operation(&mut thread.cx(), mm);
            done.store(true, SeqCst);
        });
        let slept = wait_asleep.recv_timeout(Duration::from_secs(600));
        slept.expect("its window calls the driver");
        others_go_on(&mut cx, mm);
        let waiting = inside(&mut cx, &Scene { mm, scope: s });
        thread::sleep(Duration::from_millis(20));
        assert!(waiting.iter().all(|t| !t.is_finished()), "it did not wait");
        assert!(!done.load(SeqCst), "it has slept all the time");
        drop(wake);
    });
    assert!(!sleeper.armed.load(SeqCst));
    mm.unregister(&mut cx, reg);
    mm.exit(&mut cx);
    assert_eq!(machine.mem().in_use(), 0);
}

/// Faults, operations, registrations and the epoch, all away from what sleeps.
fn others_go_on(cx: &mut CallCx<'_>, mm: &Arc<Mm>) {
    let (d, reg) = mm.register(cx, Driver::new);
    mm.store(cx, at(B), 3).unwrap();
    assert_eq!(d.try_read(cx, mm, at(B)), Ok(3), "a driver's fault");
    mm.madvise(cx, at(B + 1), PAGE, Advice::DontNeed).unwrap();
    assert_eq!(mm.load(cx, at(B + 1)), Ok(0), "a processor's fault");
    mm.store(cx, at(B + 1), 1).unwrap();
    map(cx, mm, C, 16);
    assert_eq!(d.try_read(cx, mm, at(C)), Ok(1));
    mm.mprotect(cx, at(C), 4 * PAGE, Prot::READ).unwrap();
    let denied = mm.store(cx, at(C), 1);
    assert!(matches!(denied, Err(FaultError::Denied(_))), "{denied:?}");
    let grow = MremapArgs {
        addr: at(C + 8),
        old_len: 8 * PAGE,
        new_len: 8 * PAGE,
        flags: MremapFlags::MAYMOVE | MremapFlags::FIXED,
        new_addr: at(C + 32),
    };
    mm.mremap(cx, grow).unwrap();
    mm.mlock(cx, at(C), PAGE).unwrap();
    map(cx, mm, C, 2);
    mm.munmap(cx, at(C), 64 * PAGE).unwrap();
    assert!(mm.map_count(cx) >= 1 && !mm.maps(cx).is_empty());
    let weak = Arc::downgrade(&d);
    drop(d);
    mm.unregister(cx, reg);
    let (e, reg) = mm.subscribe(cx, World::pages(B, B + 8), Driver::new);
    mm.unregister(cx, reg);
    drop(e);
    for _ in 0..10_000 {
        drop(cx.pin());
    }
    assert!(weak.upgrade().is_none(), "nothing is reclaimed");
}

impl<'s> Scene<'s, '_> {
    /// Starts something that has to wait until the operation is over.
    fn waits(
        &self,
        what: impl FnOnce(&mut CallCx<'_>, &Mm) + Send + 's,
    ) -> thread::ScopedJoinHandle<'s, ()> {
        let mm = Arc::clone(self.mm);
        self.scope.spawn(move || {
            let mut thread = mm.machine().enter().unwrap();
            what(&mut thread.cx(), &mm);
        })
    }
}

/// Whoever waits for the window of a copy may be next, before the store is tried again.
fn stores_or_is_late(cx: &mut CallCx<'_>, mm: &Mm, page: u64) {
    let done = mm.store(cx, at(page), 9);
    let late = matches!(done, Err(FaultError::NotMapped(_) | FaultError::Denied(_)));
    assert!(done.is_ok() || late, "{done:?}");
}

fn nothing(_: &mut CallCx<'_>, _: &Mm) {}

fn unmapped(got: Result<u8, FaultError>) {
    assert!(matches!(got, Err(FaultError::NotMapped(_))), "{got:?}");
}

#[test]
fn munmap() {
    while_it_sleeps(
        nothing,
        |cx, mm| mm.munmap(cx, at(0), A * PAGE).unwrap(),
        // Its entry is still there: it is read as if just before.
        |cx, s| {
            assert_eq!(s.mm.load(cx, at(7)), Ok(1));
            vec![
                s.waits(|cx, mm| map(cx, mm, 0, 4)),
                s.waits(|cx, mm| map(cx, mm, 32, 4)),
            ]
        },
    );
}

#[test]
fn a_fault_in_what_is_unmapped_waits_for_it() {
    while_it_sleeps(
        |cx, mm| mm.madvise(cx, at(7), PAGE, Advice::DontNeed).unwrap(),
        |cx, mm| mm.munmap(cx, at(0), A * PAGE).unwrap(),
        |_, s| vec![s.waits(|cx, mm| unmapped(mm.load(cx, at(7))))],
    );
}

#[test]
fn munmap_of_a_part_of_a_huge_block() {
    // The first window is that of a huge page which might lie across the cut.
    let big = 4 << 10;
    while_it_sleeps(
        move |cx, mm| map(cx, mm, big, 2048),
        move |cx, mm| mm.munmap(cx, at(big + 1000), 3 * PAGE).unwrap(),
        move |_, s| vec![s.waits(move |cx, mm| mm.munmap(cx, at(big + 1000), PAGE).unwrap())],
    );
}

#[test]
fn mprotect() {
    while_it_sleeps(
        |cx, mm| mm.madvise(cx, at(7), PAGE, Advice::DontNeed).unwrap(),
        |cx, mm| mm.mprotect(cx, at(0), 8 * PAGE, Prot::READ).unwrap(),
        |cx, s| {
            // The rest of what was the mapping is another by now.
            s.mm.madvise(cx, at(20), PAGE, Advice::DontNeed).unwrap();
            assert_eq!(s.mm.load(cx, at(20)), Ok(0));
            s.mm.munmap(cx, at(30), 4 * PAGE).unwrap();
            vec![
                s.waits(|cx, mm| assert_eq!(mm.load(cx, at(7)), Ok(0))),
                s.waits(|cx, mm| mm.mprotect(cx, at(4), PAGE, RW).unwrap()),
            ]
        },
    );
}

#[test]
fn mprotect_over_several_mappings_is_one() {
    while_it_sleeps(
        |cx, mm| {
            mm.mprotect(cx, at(16), 16 * PAGE, Prot::empty()).unwrap();
            mm.madvise(cx, at(40), PAGE, Advice::DontNeed).unwrap();
        },
        |cx, mm| mm.mprotect(cx, at(0), A * PAGE, Prot::READ).unwrap(),
        |_, s| vec![s.waits(|cx, mm| assert_eq!(mm.load(cx, at(40)), Ok(0)))],
    );
}

#[test]
fn mremap() {
    let mv = MremapArgs {
        addr: at(0),
        old_len: 16 * PAGE,
        new_len: 16 * PAGE,
        flags: MremapFlags::MAYMOVE | MremapFlags::FIXED,
        new_addr: at(1000),
    };
    while_it_sleeps(
        |cx, mm| mm.madvise(cx, at(7), PAGE, Advice::DontNeed).unwrap(),
        move |cx, mm| {
            mm.mremap(cx, mv).unwrap();
        },
        |_, s| {
            vec![
                s.waits(|cx, mm| unmapped(mm.load(cx, at(7)))),
                s.waits(|cx, mm| assert_eq!(mm.load(cx, at(1003)), Ok(1))),
                s.waits(|cx, mm| assert_eq!(mm.load(cx, at(1007)), Ok(0))),
                s.waits(|cx, mm| mm.munmap(cx, at(1004), PAGE).unwrap()),
            ]
        },
    );
}

#[test]
fn mmap_over_something() {
    while_it_sleeps(
        |cx, mm| mm.madvise(cx, at(7), PAGE, Advice::DontNeed).unwrap(),
        |cx, mm| {
            let args = MmapArgs::anonymous(16 * PAGE).fixed(at(0));
            mm.mmap(cx, &args).unwrap();
        },
        |_, s| {
            vec![
                // Nobody sees the hole.
                s.waits(|cx, mm| assert_eq!(mm.load(cx, at(7)), Ok(0))),
                s.waits(|cx, mm| mm.munmap(cx, at(3), PAGE).unwrap()),
            ]
        },
    );
}

#[test]
fn brk() {
    let heap = 2000;
    while_it_sleeps(
        move |cx, mm| {
            mm.set_start_brk(cx, at(heap)).unwrap();
            assert_eq!(mm.brk(cx, at(heap + 16)), at(heap + 16));
            (heap..heap + 15).for_each(|p| mm.store(cx, at(p), 1).unwrap());
        },
        move |cx, mm| assert_eq!(mm.brk(cx, at(heap + 4)), at(heap + 4)),
        move |cx, s| {
            assert_eq!(s.mm.load(cx, at(heap)), Ok(1), "below the new break");
            vec![
                // Gone, or come anew with what follows here.
                s.waits(move |cx, mm| {
                    let got = mm.load(cx, at(heap + 15));
                    assert!(
                        matches!(got, Ok(0) | Err(FaultError::NotMapped(_))),
                        "{got:?}"
                    );
                }),
                s.waits(move |cx, mm| assert_eq!(mm.brk(cx, at(heap + 20)), at(heap + 20))),
            ]
        },
    );
}

#[test]
fn madvise_dontneed() {
    while_it_sleeps(
        nothing,
        |cx, mm| mm.madvise(cx, at(0), 8 * PAGE, Advice::DontNeed).unwrap(),
        |cx, s| {
            assert_eq!(s.mm.load(cx, at(7)), Ok(1), "the mapping is as it was");
            // The rest of the mapping is nobody's.
            s.mm.munmap(cx, at(20), 4 * PAGE).unwrap();
            vec![
                s.waits(|cx, mm| mm.munmap(cx, at(4), PAGE).unwrap()),
                s.waits(|cx, mm| mm.mprotect(cx, at(0), A * PAGE, Prot::READ).unwrap_or(())),
            ]
        },
    );
}

#[test]
fn madvise_pageout() {
    while_it_sleeps(
        nothing,
        |cx, mm| mm.madvise(cx, at(0), 8 * PAGE, Advice::PageOut).unwrap(),
        |_, s| vec![s.waits(|cx, mm| mm.munmap(cx, at(4), PAGE).unwrap())],
    );
}

#[test]
fn madvise_free() {
    while_it_sleeps(
        nothing,
        |cx, mm| mm.madvise(cx, at(0), 8 * PAGE, Advice::Free).unwrap(),
        |_, s| vec![s.waits(|cx, mm| mm.munmap(cx, at(4), PAGE).unwrap())],
    );
}

#[test]
fn guards() {
    while_it_sleeps(
        nothing,
        |cx, mm| {
            mm.madvise(cx, at(0), 8 * PAGE, Advice::GuardInstall)
                .unwrap()
        },
        |_, s| vec![s.waits(|cx, mm| mm.munmap(cx, at(4), PAGE).unwrap())],
    );
}

#[test]
fn copy_on_write() {
    let child = Mutex::new(None);
    while_it_sleeps(
        |cx, mm| *child.lock().unwrap() = Some(mm.fork(cx).unwrap()),
        |cx, mm| stores_or_is_late(cx, mm, 3),
        |cx, s| {
            s.mm.store(cx, at(4), 9).unwrap();
            s.mm.munmap(cx, at(8), PAGE).unwrap();
            let taken = child.lock().unwrap().take();
            if let Some(child) = taken {
                assert_eq!(child.load(cx, at(3)), Ok(1));
                child.exit(cx);
            }
            vec![
                s.waits(|cx, mm| mm.munmap(cx, at(3), PAGE).unwrap()),
                s.waits(|cx, mm| mm.mprotect(cx, at(0), 5 * PAGE, Prot::READ).unwrap_or(())),
            ]
        },
    );
}

#[test]
fn populate() {
    let child = Mutex::new(None);
    while_it_sleeps(
        |cx, mm| *child.lock().unwrap() = Some(mm.fork(cx).unwrap()),
        |cx, mm| {
            let done = mm.madvise(cx, at(0), 8 * PAGE, Advice::PopulateWrite);
            assert!(
                matches!(done, Ok(()) | Err(MadviseError::Hole(_))),
                "{done:?}"
            );
        },
        |cx, s| {
            s.mm.munmap(cx, at(20), PAGE).unwrap();
            let taken = child.lock().unwrap().take();
            if let Some(child) = taken {
                child.exit(cx);
            }
            vec![s.waits(|cx, mm| mm.munmap(cx, at(0), PAGE).unwrap())]
        },
    );
}

#[test]
fn mlock() {
    let child = Mutex::new(None);
    while_it_sleeps(
        |cx, mm| *child.lock().unwrap() = Some(mm.fork(cx).unwrap()),
        |cx, mm| {
            mm.mlock(cx, at(0), 8 * PAGE).unwrap();
        },
        |cx, s| {
            s.mm.munmap(cx, at(20), PAGE).unwrap();
            let taken = child.lock().unwrap().take();
            if let Some(child) = taken {
                child.exit(cx);
            }
            vec![s.waits(|cx, mm| mm.munmap(cx, at(0), 2 * PAGE).unwrap())]
        },
    );
}

#[test]
fn a_huge_page_that_is_copied() {
    let big = 4 << 10;
    while_it_sleeps(
        move |cx, mm| {
            let args = MmapArgs::anonymous(1024 * PAGE).fixed(at(big));
            mm.mmap(cx, &args).unwrap();
            mm.madvise(cx, at(big), 1024 * PAGE, Advice::HugePage)
                .unwrap();
            assert_eq!(mm.load(cx, at(big)), Ok(0), "the huge zero page");
        },
        move |cx, mm| stores_or_is_late(cx, mm, big + 3),
        move |cx, s| {
            s.mm.munmap(cx, at(big + 1000), PAGE).unwrap();
            vec![s.waits(move |cx, mm| mm.munmap(cx, at(big + 3), PAGE).unwrap())]
        },
    );
}

/// The twin: what holds the mmap lock of its own accord holds up every operation, and behind it
/// every fault.
#[test]
fn who_holds_the_lock_holds_up_others() {
    let machine = machine(64);
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let mm = Mm::new(&machine);
    let args = MmapArgs::anonymous(8 * PAGE)
        .fixed(at(0))
        .flags(MapFlags::POPULATE);
    mm.mmap(&mut cx, &args).unwrap();
    let held = mm.lock_shared(&mut cx);
    thread::scope(|s| {
        let other = s.spawn(|| {
            let mut thread = machine.enter().unwrap();
            mm.munmap(&mut thread.cx(), at(4), PAGE).unwrap();
        });
        thread::sleep(Duration::from_millis(20));
        assert!(!other.is_finished());
        drop(held);
    });
}

/// The pages that sleep are closed to drivers, others are not.
#[test]
fn a_driver_is_held_off_where_the_window_is() {
    let (d, keep) = (Mutex::new(None), Mutex::new(None));
    while_it_sleeps(
        |cx, mm| {
            let (driver, reg) = mm.register(cx, Driver::new);
            *d.lock().unwrap() = Some(driver);
            *keep.lock().unwrap() = Some(reg);
        },
        |cx, mm| mm.madvise(cx, at(0), PAGE, Advice::DontNeed).unwrap(),
        |cx, s| {
            let d = d.lock().unwrap().take().unwrap();
            assert_eq!(d.try_read(cx, s.mm, at(0)), Err(Retry::Busy));
            assert_eq!(d.try_read(cx, s.mm, at(9)), Ok(1));
            Vec::new()
        },
    );
    drop(keep);
}
