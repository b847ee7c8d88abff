//! A driver is on one chain at a time, with a gate that answers for it, and what waits for it to
//! leave can be named.

use crate::common::{
    BASE, PAGE,
    driver::Driver,
    machine,
    numbered::{filled, page, said, window},
};
use emmu::{
    addr::VpnRange,
    ctx::{Atomic, CallCx, CallbackCx},
    error::{Errno, RegisterError},
    notifier::{
        Access, Ack, Event, ExternalMmu, Gate, Gates, Invalidation, OrderedStore, Retry, Seat,
    },
};
use std::sync::{Arc, Mutex, OnceLock, mpsc::channel};

/// A driver whose gate is made when it pleases.
struct Late {
    gate: OnceLock<Gate<OrderedStore<u64>, (), Atomic>>,
    _seat: Mutex<Option<Seat>>,
}

impl Late {
    fn new(seat: Option<Seat>) -> Arc<Self> {
        Arc::new(Self {
            gate: OnceLock::new(),
            _seat: Mutex::new(seat),
        })
    }
}

impl ExternalMmu for Late {
    fn invalidate_start<'i>(&self, cx: CallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        self.gate
            .get()
            .expect("made by now")
            .exclude(cx, inv, |(), _, _| ())
    }
    fn name(&self) -> &'static str {
        "Late"
    }
}

fn refused<T>(result: Result<T, RegisterError>) -> RegisterError {
    result.map(drop).unwrap_err()
}

/// Neither windows nor the exit could ever have its consent; so it is refused when it comes, and
/// nothing has changed.
#[test]
fn a_driver_that_cannot_answer_is_not_registered() {
    let machine = machine(64);
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let (mm, other) = (filled(&mut cx, &machine), filled(&mut cx, &machine));
    let dropped = refused(mm.try_register(&mut cx, |seat| {
        drop(seat);
        Late::new(None)
    }));
    assert_eq!(
        (dropped, dropped.errno()),
        (RegisterError::NoGate("Late"), Errno::EINVAL)
    );
    let kept = refused(mm.try_register(&mut cx, |seat| Late::new(Some(seat))));
    assert_eq!(kept, RegisterError::NoGate("Late"));
    let gone = refused(mm.try_subscribe(&mut cx, VpnRange::ALL, |seat| {
        drop(Gate::<_, _, Atomic>::new(
            seat,
            OrderedStore::<u64>::default(),
            (),
        ));
        Late::new(None)
    }));
    assert_eq!(gone, RegisterError::NoGate("Late"));
    assert!(said(|| drop(mm.register(&mut cx, |_| Late::new(None)))).is_some());

    let (driver, registration) = mm.register(&mut cx, Driver::new);
    for space in [&mm, &other] {
        let again = Arc::clone(&driver);
        let mut gates = Vec::new();
        let twice = space.try_register(&mut cx, |seat| {
            let gates_of =
                Gates::<_, _, Atomic>::new(seat, || (OrderedStore::<u64>::default(), ()));
            gates.push(gates_of);
            again
        });
        let twice = refused(twice);
        assert!(matches!(twice, RegisterError::Twice(_)) && twice.errno() == Errno::EEXIST);
    }
    mm.munmap(&mut cx, BASE, PAGE).unwrap();
    other.munmap(&mut cx, BASE, PAGE).unwrap();
    assert_eq!(driver.told(), (1, 1));
    mm.unregister(&mut cx, registration);
    mm.exit(&mut cx);
    other.exit(&mut cx);
    assert_eq!(machine.mem().in_use(), 0);
}

/// A driver that is on no chain any more may come again, with a gate for its new seat.
#[test]
fn a_driver_may_come_again() {
    type Shared = Arc<Gate<OrderedStore<u64>, (), Atomic>>;
    struct Again(Mutex<Option<Shared>>);
    impl ExternalMmu for Again {
        fn invalidate_start<'i>(&self, cx: CallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
            let gate = self.0.lock().unwrap().clone().expect("it has one");
            gate.exclude(cx, inv, |(), _, _| ())
        }
    }
    let machine = machine(64);
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let mm = filled(&mut cx, &machine);
    let driver = Arc::new(Again(Mutex::new(None)));
    for _ in 0..3 {
        let (_, registration) = mm.register(&mut cx, |seat| {
            let gate = Gate::new(seat, OrderedStore::default(), ());
            *driver.0.lock().unwrap() = Some(Arc::new(gate));
            Arc::clone(&driver)
        });
        window(&mut cx, &mm, 1);
        registration.unregister(&mut cx);
    }
    mm.exit(&mut cx);
}

/// An unregistration that does not return waits for a window that has a name.
#[test]
fn a_window_that_was_forgotten_can_be_named() {
    let machine = machine(64);
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let mm = filled(&mut cx, &machine);
    let (_driver, registration) = mm.register(&mut cx, Driver::new);
    assert_eq!(mm.open_windows(), []);
    let pages = VpnRange::new(page(2), page(5)).unwrap();
    {
        let mut guard = mm.lock_shared(&mut cx);
        let mut lease = guard.lease();
        std::mem::forget(lease.window(pages, Event::Clear));
    }
    assert_eq!((mm.open_windows(), mm.windows_open()), (vec![pages], 1));
    window(&mut cx, &mm, 7);
    assert_eq!(mm.open_windows(), [pages]);
    // Neither can end now, and so they stay.
    std::mem::forget((mm, registration));
}

/// Unregistered with a token of another machine, a driver stays where it is; the exit takes it off.
#[test]
fn a_driver_is_taken_off_by_its_own_machine() {
    let (mine, other) = (machine(64), machine(64));
    let (mm, driver, registration) = {
        let mut thread = mine.enter().unwrap();
        let mut cx = thread.cx();
        let mm = filled(&mut cx, &mine);
        let (driver, registration) = mm.register(&mut cx, Driver::new);
        (mm, driver, registration)
    };
    {
        let mut thread = other.enter().unwrap();
        let mut cx = thread.cx();
        assert!(said(|| registration.unregister(&mut cx)).is_some());
    }
    let mut thread = mine.enter().unwrap();
    let mut cx = thread.cx();
    assert_eq!(driver.read(&mut cx, &mm, BASE + PAGE), Ok(1));
    mm.munmap(&mut cx, BASE, PAGE).unwrap();
    assert_eq!(driver.told(), (1, 1));
    mm.exit(&mut cx);
    assert!(driver.releases.load(std::sync::atomic::Ordering::SeqCst) == 1);
}

/// The window calls the driver neither for its beginning nor for its end, so no hardware of the
/// driver could cancel what it took.
#[test]
fn a_page_of_a_window_from_before_the_registration_is_not_vouched_for() {
    let machine = machine(64);
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let mm = filled(&mut cx, &machine);
    let (_first, _stays) = mm.register(&mut cx, Driver::new);
    let (open, opened) = channel();
    let (close, closed) = channel::<()>();
    std::thread::scope(|scope| {
        let (mm, machine) = (&mm, &machine);
        let window = scope.spawn(move || {
            let mut thread = machine.enter().unwrap();
            let mut cx = thread.cx();
            let mut guard = mm.lock_shared(&mut cx);
            let mut lease = guard.lease();
            let window = lease.window(VpnRange::single(page(3)), Event::Clear);
            open.send(()).unwrap();
            let _dropped = closed.recv();
            drop(window);
        });
        opened.recv().unwrap();
        let (late, _stays) = mm.register(&mut cx, Driver::new);
        let vouched = |cx: &mut CallCx<'_>, n| {
            let ticket = late.gate.ticket(page(n), Access::Read);
            mm.resolve(cx, ticket).unwrap().vouch().map(drop)
        };
        let asked = [3, 9].map(|n| vouched(&mut cx, n));
        drop(close);
        window.join().unwrap();
        assert_eq!(asked, [Err(Retry::Busy), Ok(())]);
        assert_eq!(vouched(&mut cx, 3), Ok(()));
        assert_eq!(late.told(), (0, 0));
    });
    mm.exit(&mut cx);
}
