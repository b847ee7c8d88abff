//! A callback that sleeps holds up its own window, and nothing else.

use crate::common::{BASE, PAGE, World, at, driver::Driver, machine};
use emmu::{
    Mm,
    addr::VpnRange,
    ctx::{AtomicCallbackCx, CallCx, CallbackCx, Sleepable},
    mm::MmapArgs,
    notifier::{Ack, Event, ExternalMmu, Gate, Invalidation, OrderedStore, Retry, Seat},
};
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering::SeqCst},
    mpsc::{self, Receiver, Sender},
};

fn pages(from: u64, to: u64) -> VpnRange {
    World::pages(from, to)
}

/// A driver that, asked for page 0, sleeps until it is woken.
struct Sleeper {
    gate: Gate<OrderedStore<u64>, (), Sleepable>,
    asleep: Mutex<Sender<()>>,
    wake: Mutex<Receiver<()>>,
    ends: AtomicUsize,
}

impl Sleeper {
    fn new(seat: Seat, asleep: Sender<()>, wake: Receiver<()>) -> Arc<Self> {
        Arc::new(Self {
            gate: Gate::new(seat, OrderedStore::default(), ()),
            asleep: Mutex::new(asleep),
            wake: Mutex::new(wake),
            ends: AtomicUsize::new(0),
        })
    }
}

impl ExternalMmu for Sleeper {
    fn invalidate_start<'i>(&self, cx: CallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        if inv.range() == pages(0, 1) {
            self.asleep.lock().unwrap().send(()).unwrap();
            let _woken = self.wake.lock().unwrap().recv();
        }
        self.gate.exclude(cx, inv, |(), _, _| ())
    }
    fn invalidate_end(&self, _: AtomicCallbackCx<'_>, _: VpnRange) {
        self.ends.fetch_add(1, SeqCst);
    }
}

/// Drops pages in a window under the mmap lock held shared.
fn drop_pages(cx: &mut CallCx<'_>, mm: &Mm, range: VpnRange) {
    let mut g = mm.lock_shared(cx);
    let mut lease = g.lease();
    lease.with_window(range, Event::Clear, |w| {
        w.for_each_leaf(|leaf| leaf.for_each(|slot| drop(slot.clear())));
    });
}

/// Runs `f` while a driver of the whole space sleeps in its callback for a window over page 0. What
/// `f` does must not wait for it: it would never return.
fn while_one_sleeps(f: impl FnOnce(&mut CallCx<'_>, &Arc<Mm>, &Sleeper)) {
    let machine = machine(4096);
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let mm = Mm::new(&machine);
    let args = MmapArgs::anonymous(64 * PAGE).fixed(BASE);
    mm.mmap(&mut cx, &args).unwrap();
    let (asleep, wait_asleep) = mpsc::channel();
    let (wake, woken) = mpsc::channel();
    let (sleeper, reg) = mm.register(&mut cx, |seat| Sleeper::new(seat, asleep, woken));
    std::thread::scope(|s| {
        let mm = &mm;
        // Dropped here also if `f` panics.
        let wake = wake;
        s.spawn(move || {
            let mut thread = mm.machine().enter().unwrap();
            drop_pages(&mut thread.cx(), mm, pages(0, 1));
        });
        wait_asleep.recv().unwrap();
        f(&mut cx, mm, &sleeper);
        assert_eq!(mm.windows_open(), 1, "it has slept all the time");
        drop(wake);
    });
    mm.unregister(&mut cx, reg);
    mm.exit(&mut cx);
    assert_eq!(machine.mem().in_use(), 0);
}

#[test]
fn a_sleeping_callback_blocks_no_window_over_another_range() {
    while_one_sleeps(|cx, mm, sleeper| {
        mm.store(cx, at(8), 1).unwrap();
        drop_pages(cx, mm, pages(8, 12));
        assert_eq!(sleeper.ends.load(SeqCst), 1, "the same driver, elsewhere");
        drop_pages(cx, mm, pages(1, 64));
        assert_eq!(sleeper.ends.load(SeqCst), 2);
    });
}

#[test]
fn a_sleeping_callback_blocks_no_fault_on_another_range() {
    while_one_sleeps(|cx, mm, _| {
        let (d, reg) = mm.register(cx, Driver::new);
        mm.store(cx, at(8), 3).unwrap();
        assert_eq!(mm.load(cx, at(0)), Ok(0), "the processor is not held off");
        assert_eq!(d.try_read(cx, mm, at(8)), Ok(3));
        assert_eq!(d.try_read(cx, mm, at(0)), Err(Retry::Busy));
        d.gate.wait_idle(cx, pages(1, 64));
        mm.unregister(cx, reg);
    });
}

#[test]
fn a_sleeping_callback_blocks_no_registration_and_no_unregistration() {
    while_one_sleeps(|cx, mm, _| {
        let (a, ra) = mm.register(cx, Driver::new);
        let (b, rb) = mm.subscribe(cx, pages(0, 8), Driver::new);
        mm.unregister(cx, ra);
        mm.unregister(cx, rb);
        assert_eq!((a.releases.load(SeqCst), b.releases.load(SeqCst)), (1, 1));
    });
}

#[test]
fn a_sleeping_callback_blocks_no_epoch() {
    while_one_sleeps(|cx, mm, _| {
        let (d, reg) = mm.register(cx, Driver::new);
        let weak = Arc::downgrade(&d);
        drop(d);
        mm.unregister(cx, reg);
        for _ in 0..10_000 {
            drop(cx.pin());
        }
        assert!(weak.upgrade().is_none(), "nothing is reclaimed");
    });
}

/// The twin of the last one: who stays pinned does block it.
#[test]
fn a_pin_blocks_the_epoch() {
    let machine = machine(64);
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let mm = Mm::new(&machine);
    let (d, reg) = mm.register(&mut cx, Driver::new);
    let weak = Arc::downgrade(&d);
    drop(d);
    std::thread::scope(|s| {
        let (pinned, wait_pinned) = mpsc::channel();
        let (go, wait) = mpsc::channel::<()>();
        let machine = &machine;
        s.spawn(move || {
            let mut thread = machine.enter().unwrap();
            let mut cx = thread.cx();
            let pin = cx.pin();
            pinned.send(()).unwrap();
            let _gone = wait.recv();
            drop(pin);
        });
        wait_pinned.recv().unwrap();
        mm.unregister(&mut cx, reg);
        for _ in 0..10_000 {
            drop(cx.pin());
        }
        assert!(weak.upgrade().is_some(), "a walker may be on it");
        drop(go);
    });
    for _ in 0..10_000 {
        drop(cx.pin());
    }
    assert!(weak.upgrade().is_none());
}

/// Two drivers of ranges, one gate each: one sleeps with its gate held, the other works.
#[test]
fn a_sleeping_subscription_blocks_no_other_subscription() {
    while_one_sleeps(|cx, mm, _| {
        let (d, reg) = mm.subscribe(cx, pages(8, 16), Driver::new);
        for n in 0..100 {
            mm.store(cx, at(8), n).unwrap();
            assert_eq!(d.try_read(cx, mm, at(8)), Ok(n));
            drop_pages(cx, mm, pages(8, 9));
        }
        assert_eq!(d.told(), (100, 100));
        mm.unregister(cx, reg);
    });
}
