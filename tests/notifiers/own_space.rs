//! The end of a registration: beside the end of its address space, and of a driver that has the
//! last handle on that space.

use crate::common::{PAGE, RW, at, calls::private, ends_within, machine};
use emmu::{
    Mm,
    ctx::{Atomic, AtomicCallbackCx, CallbackCx},
    driver::{
        Ack, Gate, Invalidation, OrderedStore, Seat, SecondaryTlb, SpinningMmu, TlbGate, TlbSeat,
        VpnRange,
    },
    mm::MmapArgs,
};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

/// A callback of a driver or of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum In {
    Begin,
    End,
    Release,
}

/// Gives its handle up in one of its callbacks.
struct Keeper<G> {
    gate: G,
    kept: Mutex<Option<Arc<Mm>>>,
    drops: In,
}

impl<G> Keeper<G> {
    fn called(&self, callback: In) {
        if callback == self.drops {
            drop(self.kept.lock().unwrap().take());
        }
    }
}

impl SpinningMmu for Keeper<Gate<OrderedStore<u64>, (), Atomic>> {
    fn invalidate<'i>(&self, cx: AtomicCallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        self.called(In::Begin);
        self.gate.exclude(cx, inv, |(), _, _| ())
    }
    fn invalidate_end(&self, _: AtomicCallbackCx<'_>, _: VpnRange) {
        self.called(In::End);
    }
    fn release(&self, _: CallbackCx<'_>) {
        self.called(In::Release);
    }
}

impl SecondaryTlb for Keeper<TlbGate<()>> {
    fn flush(&self, cx: AtomicCallbackCx<'_>, range: VpnRange) {
        self.called(In::Begin);
        self.gate.flush(cx, range, |(), _| ());
    }
    fn release(&self, _: AtomicCallbackCx<'_>) {
        self.called(In::Release);
    }
}

fn driver_leaves(drops: In, walks: bool) {
    let machine = machine(64);
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let mm = Mm::new(&machine);
    let addr = mm.mmap(&mut cx, &MmapArgs::anonymous(4 * PAGE)).unwrap();
    mm.store(&mut cx, addr, 1).unwrap();
    let kept = Mutex::new(Some(Arc::clone(&mm)));
    if walks {
        let (_keeper, registration) = mm.register_tlb(&mut cx, |seat: TlbSeat| {
            let gate = TlbGate::new(seat, ());
            Arc::new(Keeper { gate, kept, drops })
        });
        drop(mm);
        registration.unregister(&mut cx);
    } else {
        let (_keeper, registration) = mm.register(&mut cx, |seat: Seat| {
            let gate = Gate::new(seat, OrderedStore::default(), ());
            Arc::new(Keeper { gate, kept, drops })
        });
        drop(mm);
        registration.unregister(&mut cx);
    }
    assert_eq!(machine.mem().in_use(), 0, "{drops:?}, walks: {walks}");
}

fn ends(work: impl FnOnce() + Send + 'static) {
    ends_within(Duration::from_secs(60), work);
}

#[test]
fn a_driver_that_leaves_may_drop_the_last_handle_on_its_space() {
    for drops in [In::Begin, In::End, In::Release] {
        ends(move || driver_leaves(drops, false));
    }
}

#[test]
fn a_device_that_leaves_may_drop_the_last_handle_on_its_space() {
    for drops in [In::Begin, In::Release] {
        ends(move || driver_leaves(drops, true));
    }
}

/// Stays in one of its callbacks until it may go on.
struct Slow {
    gate: TlbGate<()>,
    stays: In,
    entered: AtomicBool,
    may_go: AtomicBool,
    flushing: AtomicBool,
    released: AtomicBool,
}

fn wait_for(flag: &AtomicBool) {
    while !flag.load(SeqCst) {
        thread::yield_now();
    }
}

impl Slow {
    fn called(&self, callback: In) {
        if callback == self.stays && !self.entered.swap(true, SeqCst) {
            wait_for(&self.may_go);
        }
    }
}

impl SecondaryTlb for Slow {
    fn flush(&self, cx: AtomicCallbackCx<'_>, range: VpnRange) {
        let outer = self.flushing.swap(true, SeqCst);
        self.called(In::Begin);
        self.gate.flush(cx, range, |(), _| ());
        self.flushing.store(outer, SeqCst);
    }
    fn release(&self, _: AtomicCallbackCx<'_>) {
        assert!(!self.flushing.load(SeqCst), "released within a flush");
        self.called(In::Release);
        assert!(!self.released.swap(true, SeqCst), "released twice");
    }
}

/// One thread ends the address space, and one the registration; the second begins while the first
/// is in a callback.
fn ends_in_two_threads(stays: In, exit_first: bool) {
    let machine = machine(64);
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let mm = Mm::new(&machine);
    mm.mmap(&mut cx, &private(0, 4).prot(RW)).unwrap();
    mm.store(&mut cx, at(0), 1).unwrap();
    let (slow, registration) = mm.register_tlb(&mut cx, |seat| {
        Arc::new(Slow {
            gate: TlbGate::new(seat, ()),
            stays,
            entered: AtomicBool::new(false),
            may_go: AtomicBool::new(false),
            flushing: AtomicBool::new(false),
            released: AtomicBool::new(false),
        })
    });
    drop(thread);
    let exit = || {
        let mut thread = machine.enter().unwrap();
        mm.exit(&mut thread.cx());
        assert!(slow.released.load(SeqCst), "the exit returned early");
    };
    let unregister = || {
        let mut thread = machine.enter().unwrap();
        registration.unregister(&mut thread.cx());
        assert!(slow.released.load(SeqCst), "unregister returned early");
    };
    let second_in = |first: Box<dyn FnOnce() + Send + '_>,
                     second: Box<dyn FnOnce() + Send + '_>| {
        thread::scope(|s| {
            s.spawn(first);
            wait_for(&slow.entered);
            s.spawn(second);
            thread::sleep(Duration::from_millis(30));
            slow.may_go.store(true, SeqCst);
        });
    };
    if exit_first {
        second_in(Box::new(exit), Box::new(unregister));
    } else {
        second_in(Box::new(unregister), Box::new(exit));
    }
    assert_eq!(machine.mem().in_use(), 0);
}

#[test]
fn an_unregistration_beside_an_exit_returns_when_the_device_was_released() {
    for stays in [In::Begin, In::Release] {
        for exit_first in [false, true] {
            ends_in_two_threads(stays, exit_first);
        }
    }
}
