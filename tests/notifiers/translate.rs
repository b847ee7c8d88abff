//! `Gate::translate` and `Gates::translate`: the loop of a miss, with windows in the way at fixed
//! moments, and the drivers of `emmu::driver`.

use crate::{
    beside::{other, window},
    common::{BASE, PAGE, at},
};
use emmu::{
    Machine,
    driver::*,
    mm::{Advice, MmapArgs, Prot},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
};

/// A driver with one gate.
struct One(Gate<OrderedStore<Vpn>, (), Atomic>);

impl One {
    fn new(seat: Seat) -> Arc<Self> {
        Arc::new(Self(Gate::new(seat, OrderedStore::default(), ())))
    }
    fn read(&self, cx: &mut CallCx<'_>, mm: &Mm, n: u64) -> Result<u8, TranslateError> {
        let page = Vpn::containing(at(n));
        self.0.translate(cx, mm, page, Access::Read, read(page))
    }
}

impl SpinningMmu for One {
    fn invalidate<'i>(&self, cx: AtomicCallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        self.0.exclude(cx, inv, |(), _, _| ())
    }
    fn name(&self) -> &'static str {
        "one gate"
    }
}

/// A driver with several gates that sleep.
struct Several(Gates<OrderedStore<Vpn>, (), Sleepable>);

impl Several {
    fn new(seat: Seat) -> Arc<Self> {
        Arc::new(Self(Gates::new(seat, || (OrderedStore::default(), ()))))
    }
}

impl ExternalMmu for Several {
    fn invalidate_start<'i>(&self, mut cx: CallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        self.0.exclude_with(&mut cx, inv, |_, _, (), _| ())
    }
}

/// Establishes the page, and reads its first byte through the gate.
fn read<T, C: Context>(page: Vpn) -> impl FnOnce(Permit<'_, OrderedStore<Vpn>, T, C>) -> u8 {
    move |permit| {
        let gate = permit.establish(page);
        gate.lookup(&page).expect("just established").read_u8(0)
    }
}

/// An address space of 16 pages, the byte of page n being n + 1.
fn world() -> (Arc<Machine>, Arc<Mm>) {
    let machine = crate::common::machine(4096);
    let mm = Mm::new(&machine);
    other(&machine, |cx| {
        mm.mmap(cx, &MmapArgs::anonymous(16 * PAGE).fixed(BASE))
            .unwrap();
        (0..16).for_each(|n| mm.store(cx, at(n), n as u8 + 1).unwrap());
    });
    (machine, mm)
}

/// Counts a ticket, and acts after the first.
fn at_first(tickets: &mut u32, act: impl FnOnce()) {
    *tickets += 1;
    if *tickets == 1 {
        act();
    }
}

#[test]
fn a_window_that_closes_after_the_ticket_makes_it_look_again() {
    let (machine, mm) = world();
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let (one, _r) = mm.register(&mut cx, One::new);
    let (several, _s) = mm.register(&mut cx, Several::new);
    let page = Vpn::containing(at(3));
    let drop_it = || {
        other(&machine, |cx| {
            mm.madvise(cx, at(3), PAGE, Advice::DontNeed).unwrap();
            mm.store(cx, at(3), 77).unwrap();
        });
    };
    let mut tickets = 0;
    let one = one.0.translate_with(
        &mut cx,
        &mm,
        |gate| {
            let ticket = gate.ticket(page, Access::Read);
            at_first(&mut tickets, drop_it);
            ticket
        },
        read(page),
    );
    assert_eq!((one, tickets), (Ok(77), 2));
    let mut tickets = 0;
    let several = several.0.translate_with(
        &mut cx,
        &mm,
        |gates| {
            let ticket = gates.ticket(page, Access::Read);
            at_first(&mut tickets, drop_it);
            ticket
        },
        read(page),
    );
    assert_eq!((several, tickets), (Ok(77), 2));
    mm.exit(&mut cx);
}

#[test]
fn a_window_that_is_open_is_waited_for() {
    let (machine, mm) = world();
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let (one, _r) = mm.register(&mut cx, One::new);
    let (several, _s) = mm.register(&mut cx, Several::new);
    let page = Vpn::containing(at(3));
    for nth in 0..2 {
        let closed = AtomicBool::new(false);
        thread::scope(|s| {
            let close = window(s, &mm, 3, &closed);
            // Another page is not held up.
            assert_eq!(one.read(&mut cx, &mm, 4), Ok(5));
            let mut tickets = 0;
            let seen = if nth == 0 {
                one.0.translate_with(
                    &mut cx,
                    &mm,
                    |gate| {
                        let ticket = gate.ticket(page, Access::Read);
                        at_first(&mut tickets, || close.send(()).unwrap());
                        ticket
                    },
                    |_| closed.load(SeqCst),
                )
            } else {
                several.0.translate_with(
                    &mut cx,
                    &mm,
                    |gates| {
                        let ticket = gates.ticket(page, Access::Read);
                        at_first(&mut tickets, || close.send(()).unwrap());
                        ticket
                    },
                    |_| closed.load(SeqCst),
                )
            };
            assert_eq!(
                (seen, tickets),
                (Ok(true), 2),
                "admitted inside of a window"
            );
        });
    }
    mm.exit(&mut cx);
}

#[test]
fn a_driver_that_leaves_meanwhile_gets_nothing() {
    let (machine, mm) = world();
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let (one, registration) = mm.register(&mut cx, One::new);
    let page = Vpn::containing(at(3));
    let mut registration = Some(registration);
    let gone = Err(TranslateError::Detached { at: page });
    let refused = one.0.translate_with(
        &mut cx,
        &mm,
        |gate| {
            let ticket = gate.ticket(page, Access::Read);
            let registration = registration.take().expect("it is tried once");
            other(&machine, |cx| mm.unregister(cx, registration));
            ticket
        },
        |_| unreachable!("it is gone"),
    );
    assert_eq!(refused, gone);
    // It stays so.
    assert_eq!(one.read(&mut cx, &mm, 3), gone);
    assert_eq!(
        TranslateError::Detached { at: page }.errno(),
        emmu::Errno::ENODEV
    );
    mm.exit(&mut cx);
    assert!(one.read(&mut cx, &mm, 3).is_err());
}

#[test]
fn what_the_process_may_not_do_its_driver_is_refused() {
    let (machine, mm) = world();
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let (one, _r) = mm.register(&mut cx, One::new);
    mm.mprotect(&mut cx, at(0), PAGE, Prot::READ).unwrap();
    let page = Vpn::containing(at(0));
    let written = one.0.translate(&mut cx, &mm, page, Access::Write, |_| ());
    assert_eq!(written, Err(FaultError::Denied(at(0)).into()));
    assert_eq!(one.read(&mut cx, &mm, 0), Ok(1));
    assert_eq!(
        one.read(&mut cx, &mm, 16),
        Err(FaultError::NotMapped(at(16)).into())
    );
    let elsewhere = Mm::new(&machine);
    let refused = one.read(&mut cx, &elsewhere, 0);
    assert_eq!(refused, Err(FaultError::WrongAddressSpace.into()));
    let range = VpnRange::single(page);
    let (part, _p) = mm.subscribe(&mut cx, range, One::new);
    assert_eq!(part.read(&mut cx, &mm, 0), Ok(1));
    assert_eq!(
        part.read(&mut cx, &mm, 1),
        Err(FaultError::Unsubscribed(at(1)).into())
    );
    mm.exit(&mut cx);
}

/// One callback answers a window that may sleep and one that must not, and neither is refused.
#[test]
fn a_spinning_driver_answers_every_window() {
    let (machine, mm) = world();
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let (one, _r) = mm.register(&mut cx, One::new);
    let range = VpnRange::single(Vpn::containing(at(3)));
    let entries = |cx: &mut CallCx<'_>| {
        let mut n = 0;
        one.0.lock(cx).store().for_each(&mut |_| n += 1);
        n
    };
    for atomic in [false, true] {
        assert_eq!(one.read(&mut cx, &mm, 3), Ok(4));
        assert_eq!(entries(&mut cx), 1);
        let mut guard = mm.lock_shared(&mut cx);
        let mut lease = guard.lease();
        if atomic {
            lease
                .try_window(range, Event::Clear)
                .expect("it spins")
                .close();
        } else {
            lease.window(range, Event::Clear).close();
        }
        drop(guard);
        assert_eq!(entries(&mut cx), 0, "atomic: {atomic}");
    }
    let mut seen = 1;
    let looked = one.0.audited_parts(|store, ()| {
        seen = 0;
        store.for_each(&mut |_| seen += 1);
    });
    assert_eq!((looked, seen), (true, 0));
    let mmu: Arc<dyn ExternalMmu> = one.clone();
    assert_eq!(mmu.name(), "one gate");
    mm.exit(&mut cx);
}
