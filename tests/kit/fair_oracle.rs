//! The oracle blames no driver that is sound, however long that one works; and an oracle that comes
//! when an earlier one has gone sees what there is to see.

use emmu::{
    Machine, MachineConfig,
    driver::*,
    mm::{Advice, MmapArgs, Prot},
    oracle::{Finding, Oracle},
};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

/// So short that everything lasts longer.
const DEADLINE: Duration = Duration::from_millis(2);
const RW: Prot = Prot::READ.union(Prot::WRITE);

/// A driver that counts its windows, and may look around when one ends.
struct Counting {
    gate: Gate<OrderedStore<Vpn>, (), Atomic>,
    windows: AtomicU64,
    miscounts: AtomicBool,
    looks: Option<Arc<Oracle>>,
}

fn counting(looks: Option<&Arc<Oracle>>) -> impl FnOnce(Seat) -> Arc<Counting> {
    let looks = looks.cloned();
    |seat| {
        Arc::new(Counting {
            gate: Gate::new(seat, OrderedStore::default(), ()),
            windows: AtomicU64::new(0),
            miscounts: AtomicBool::new(false),
            looks,
        })
    }
}

impl SpinningMmu for Counting {
    fn invalidate<'i>(&self, cx: AtomicCallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        self.windows.fetch_add(1, SeqCst);
        self.gate.exclude_entries(cx, inv)
    }
    fn invalidate_end(&self, _: AtomicCallbackCx<'_>, _: VpnRange) {
        if let Some(oracle) = &self.looks {
            oracle.audit_liveness();
        }
        if !self.miscounts.load(SeqCst) {
            self.windows.fetch_sub(1, SeqCst);
        }
    }
    fn windows(&self) -> u64 {
        self.windows.load(SeqCst)
    }
    fn translations(&self, visit: &mut dyn FnMut(Translation)) -> bool {
        self.gate.audit(visit)
    }
}

struct World {
    oracle: Arc<Oracle>,
    mm: Arc<Mm>,
    at: u64,
}

/// Runs `f` in an address space with a page.
fn with(f: impl FnOnce(&mut CallCx<'_>, &World)) {
    let machine = Machine::new(MachineConfig::default());
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let (mm, oracle) = (Mm::new(&machine), Oracle::new(&machine));
    oracle.set_deadline(DEADLINE);
    let at = mm.mmap(&mut cx, &MmapArgs::anonymous(PAGE_SIZE)).unwrap();
    mm.store(&mut cx, at, 1).unwrap();
    let world = World { oracle, mm, at };
    f(&mut cx, &world);
    world.mm.exit(&mut cx);
}

impl World {
    fn driver(&self, cx: &mut CallCx<'_>) -> Arc<Counting> {
        let (driver, _stays) = self.mm.register(cx, counting(None));
        self.oracle.watch(&self.mm, driver.clone());
        driver
    }
    /// Returns the findings, but for windows that a busy machine keeps open for so long.
    fn found(&self) -> Vec<Finding> {
        let mut found = self.oracle.take();
        found.retain(|one| !matches!(one, Finding::LongWindow { .. }));
        found
    }
    fn assert_silent(&self) {
        let found = self.found();
        assert!(found.is_empty(), "{found:?}");
    }
    fn page(&self) -> Vpn {
        Vpn::containing(self.at)
    }
    fn drop_page(&self, cx: &mut CallCx<'_>) {
        self.mm
            .madvise(cx, self.at, PAGE_SIZE, Advice::DontNeed)
            .unwrap();
    }
    /// A look-up that a window overtakes.
    fn overtaken(&self, cx: &mut CallCx<'_>, driver: &Counting) {
        self.mm.store(cx, self.at, 1).unwrap();
        let ticket = driver.gate.ticket(self.page(), Access::Read);
        let found = self.mm.resolve(cx, ticket).unwrap();
        self.drop_page(cx);
        assert!(found.admit(cx).is_err());
    }
}

#[test]
fn a_driver_that_keeps_nothing_of_its_permits_makes_progress() {
    with(|cx, w| {
        let driver = w.driver(cx);
        for n in 0..100 {
            let read = |permit: Permit<'_, _, _, _>| permit.frame().read_u8(0);
            let byte = driver
                .gate
                .translate(cx, &w.mm, w.page(), Access::Read, read);
            assert_eq!(byte.unwrap(), 1);
            if n % 10 == 0 {
                thread::sleep(DEADLINE);
            }
        }
        w.oracle.audit();
        w.assert_silent();
    });
}

#[test]
fn tries_that_end_with_a_refusal_are_over() {
    with(|cx, w| {
        let driver = w.driver(cx);
        for _ in 0..3 {
            w.overtaken(cx, &driver);
            w.mm.mprotect(cx, w.at, PAGE_SIZE, Prot::empty()).unwrap();
            let ticket = driver.gate.ticket(w.page(), Access::Read);
            assert!(w.mm.resolve(cx, ticket).is_err());
            w.overtaken_range_is_refused(cx, &driver);
            w.mm.mprotect(cx, w.at, PAGE_SIZE, RW).unwrap();
            thread::sleep(2 * DEADLINE);
        }
        w.oracle.audit();
        w.assert_silent();
    });
}

impl World {
    fn overtaken_range_is_refused(&self, cx: &mut CallCx<'_>, driver: &Counting) {
        let ticket = driver
            .gate
            .range_ticket(self.page().into(), FaultRequest::Read);
        assert!(self.mm.resolve_range(cx, ticket).is_err());
    }
}

#[test]
fn tries_that_were_given_up_do_not_last_and_those_that_go_on_do() {
    with(|cx, w| {
        let driver = w.driver(cx);
        (0..2).for_each(|_| w.overtaken(cx, &driver));
        w.oracle.take();
        thread::sleep(2 * DEADLINE);
        w.oracle.audit();
        w.assert_silent();
        let mut tries = (0..1000).map(|_| {
            thread::sleep(DEADLINE);
            w.overtaken(cx, &driver);
            w.found()
        });
        let found = tries.find(|found| !found.is_empty()).unwrap_or_default();
        assert!(
            matches!(found[..], [Finding::NoProgress { .. }, ..]),
            "{found:?}"
        );
    });
}

/// A driver hears of the end of a window after the board of windows, one after the other.
#[test]
fn a_window_that_ends_is_not_counted_for_too_long() {
    with(|cx, w| {
        let first = w.driver(cx);
        let (_looks, _stays) = w.mm.register(cx, counting(Some(&w.oracle)));
        let second = w.driver(cx);
        for _ in 0..3 {
            w.mm.store(cx, w.at, 1).unwrap();
            w.drop_page(cx);
            thread::sleep(2 * DEADLINE);
        }
        w.assert_silent();
        for driver in [first, second] {
            driver.miscounts.store(true, SeqCst);
            w.mm.store(cx, w.at, 1).unwrap();
            w.drop_page(cx);
            w.oracle.audit_liveness();
            thread::sleep(2 * DEADLINE);
            w.oracle.audit_liveness();
            let found = w.found();
            let counted = matches!(found[..], [Finding::CountsWindows { count: 1, .. }, ..]);
            assert!(counted, "{found:?}");
            driver.miscounts.store(false, SeqCst);
            driver.windows.store(0, SeqCst);
        }
    });
}

/// A driver of TLBs that forgets its flush.
struct Forgetful(Gate<NoStore, Vec<Cached>, Atomic>);

impl SpinningMmu for Forgetful {
    fn invalidate<'i>(&self, cx: AtomicCallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        self.0.exclude(cx, inv, |_, _, _| ())
    }
    fn translations(&self, visit: &mut dyn FnMut(Translation)) -> bool {
        let mut show = |cached: &Cached| visit(cached.translation());
        self.0
            .audited_parts(|_, tlb| tlb.iter().for_each(&mut show))
    }
}

#[test]
fn an_oracle_that_follows_another_one_sees_windows_and_frames() {
    let machine = Machine::new(MachineConfig::default());
    let mut thread = machine.enter().unwrap();
    let cx = &mut thread.cx();
    let mm = Mm::new(&machine);
    let new = |seat| Arc::new(Forgetful(Gate::new(seat, NoStore, Vec::new())));
    let (driver, _stays) = mm.register(cx, new);
    let at = mm.mmap(cx, &MmapArgs::anonymous(PAGE_SIZE)).unwrap();
    for _ in 0..2 {
        let oracle = Oracle::new(&machine);
        oracle.watch(&mm, driver.clone());
        mm.store(cx, at, 1).unwrap();
        let page = Vpn::containing(at);
        let keep = |mut permit: Permit<'_, _, Vec<Cached>, _>| {
            let cached = permit.cached();
            permit.state().push(cached);
        };
        driver
            .0
            .translate(cx, &mm, page, Access::Read, keep)
            .unwrap();
        mm.madvise(cx, at, PAGE_SIZE, Advice::DontNeed).unwrap();
        let found = oracle.take();
        let inside = |one: &Finding| matches!(one, Finding::InsideWindow { .. });
        let freed = |one: &Finding| matches!(one, Finding::FreedWhileTranslated { .. });
        assert!(
            found.iter().any(inside) && found.iter().any(freed),
            "{found:?}"
        );
        driver.0.lock(cx).state().clear();
    }
    mm.exit(cx);
}

type Roam = Gate<OrderedStore<Vpn>, (), Atomic>;

/// A device that goes from one address space to another, each time with a new gate.
struct Roaming(Mutex<Option<Arc<Roam>>>);

impl Roaming {
    fn gate(&self) -> Arc<Roam> {
        Arc::clone(self.0.lock().unwrap().as_ref().expect("registered"))
    }
    fn go_to(self: &Arc<Self>, cx: &mut CallCx<'_>, mm: &Mm) -> Registration {
        let seated = |seat| {
            let gate = Gate::new(seat, OrderedStore::default(), ());
            *self.0.lock().unwrap() = Some(Arc::new(gate));
            Arc::clone(self)
        };
        mm.register(cx, seated).1
    }
}

impl SpinningMmu for Roaming {
    fn invalidate<'i>(&self, cx: AtomicCallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        self.gate().exclude_entries(cx, inv)
    }
    fn translations(&self, visit: &mut dyn FnMut(Translation)) -> bool {
        self.gate().audit(visit)
    }
}

/// The former space has pages of its own at the same addresses.
#[test]
fn a_device_that_went_to_another_space_is_blamed_for_nothing_in_the_former() {
    with(|cx, w| {
        let _stays = w.driver(cx);
        let roaming = Arc::new(Roaming(Mutex::default()));
        let registration = roaming.go_to(cx, &w.mm);
        w.oracle.watch(&w.mm, roaming.clone());
        registration.unregister(cx);
        let other = Mm::new(w.mm.machine());
        let there = MmapArgs::anonymous(PAGE_SIZE).fixed(w.at);
        other.mmap(cx, &there).unwrap();
        let _stays = roaming.go_to(cx, &other);
        w.oracle.watch(&other, roaming.clone());
        let keep = |permit: Permit<'_, _, _, _>| drop(permit.establish(w.page()));
        let gate = roaming.gate();
        gate.translate(cx, &other, w.page(), Access::Write, keep)
            .unwrap();
        w.drop_page(cx);
        w.oracle.audit();
        w.mm.exit(cx);
        w.oracle.audit_end(&w.mm);
        w.assert_silent();
        // It is watched where it is.
        other.exit(cx);
        w.oracle.audit_end(&other);
        w.assert_silent();
    });
}
