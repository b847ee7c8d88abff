//! The notifier protocol at run time: tickets and permits, refusals, ends, release, registration,
//! all through the public interface and `Arc<dyn ExternalMmu>`.

use emmu::{
    FaultError, Machine, MachineConfig, Mm,
    addr::{Vpn, VpnRange},
    ctx::{Atomic, AtomicCallbackCx, CallCx, CallbackCx, Sleepable},
    mm::{Advice, MmapArgs, Prot},
    notifier::{
        Access, Ack, AgeKind, Event, ExternalMmu, Gate, Invalidation, NoStore, OrderedStore, Retry,
        Seat, ShadowStore, WouldBlock,
    },
};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

const BASE: u64 = 1 << 30;
const PAGE: u64 = emmu::PAGE_SIZE;

fn page(n: u64) -> Vpn {
    Vpn::containing(BASE + n * PAGE)
}
fn pages(from: u64, to: u64) -> VpnRange {
    VpnRange::new(page(from), page(to)).expect("not empty")
}
fn world(cx: &mut CallCx<'_>, machine: &Arc<Machine>) -> Arc<Mm> {
    let mm = Mm::new(machine);
    mm.mmap(cx, &MmapArgs::anonymous(64 * PAGE).fixed(BASE))
        .expect("an empty space has room");
    mm
}

/// What a driver was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Start(VpnRange),
    End(VpnRange),
    Release,
}

/// A driver with a table, whose lock spins: it can be asked at any time.
struct Spinner {
    gate: Gate<OrderedStore<u64>, (), Atomic>,
    told: Mutex<Vec<Told>>,
    young: AtomicBool,
    starts: AtomicUsize,
    ends: AtomicUsize,
}

impl Spinner {
    fn new(seat: Seat) -> Arc<Self> {
        Arc::new(Self {
            gate: Gate::new(seat, OrderedStore::default(), ()),
            told: Mutex::default(),
            young: AtomicBool::new(false),
            starts: AtomicUsize::new(0),
            ends: AtomicUsize::new(0),
        })
    }
    fn tell(&self, told: Told) {
        self.told.lock().unwrap().push(told);
    }
    fn take(&self) -> Vec<Told> {
        std::mem::take(&mut self.told.lock().unwrap())
    }
    /// A translation of page `n`, again until admitted: looking up for writing may open a window
    /// itself.
    fn touch(&self, cx: &mut CallCx<'_>, mm: &Mm, n: u64, access: Access) -> u8 {
        loop {
            match self.try_touch(cx, mm, n, access) {
                Ok(byte) => return byte,
                Err(retry) => assert_ne!(retry, Retry::Detached),
            }
        }
    }
    /// One attempt to translate page `n`.
    fn try_touch(&self, cx: &mut CallCx<'_>, mm: &Mm, n: u64, access: Access) -> Result<u8, Retry> {
        let ticket = self.gate.ticket(page(n), access);
        let pending = mm.resolve(cx, ticket).expect("mapped");
        let permit = pending.admit(cx)?;
        let byte = permit.frame().read_u8(0);
        drop(permit.establish(n));
        Ok(byte)
    }
    /// Through the table, or by a new entry; again until admitted.
    fn read(&self, cx: &mut CallCx<'_>, mm: &Mm, n: u64) -> Result<u8, FaultError> {
        loop {
            if let Some(view) = self.gate.lock(cx).lookup(&n) {
                return Ok(view.read_u8(0));
            }
            let pending = mm.resolve(cx, self.gate.ticket(page(n), Access::Read))?;
            if let Ok(permit) = pending.admit(cx) {
                let byte = permit.frame().read_u8(0);
                drop(permit.establish(n));
                return Ok(byte);
            }
            std::thread::yield_now();
        }
    }
    fn entries(&self, cx: &mut CallCx<'_>) -> usize {
        let mut n = 0;
        self.gate.lock(cx).store().for_each(&mut |_| n += 1);
        n
    }
}

impl ExternalMmu for Spinner {
    fn invalidate_start<'i>(&self, cx: CallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        self.tell(Told::Start(inv.range()));
        self.starts.fetch_add(1, SeqCst);
        self.gate.exclude_entries(cx, inv)
    }
    fn try_invalidate_start<'i>(
        &self,
        cx: AtomicCallbackCx<'_>,
        inv: Invalidation<'i>,
    ) -> Result<Ack<'i>, WouldBlock> {
        let range = inv.range();
        let ack = self.gate.try_exclude(cx, inv, |(), _| ())?;
        self.tell(Told::Start(range));
        Ok(ack)
    }
    fn invalidate_end(&self, _: AtomicCallbackCx<'_>, range: VpnRange) {
        self.tell(Told::End(range));
        self.ends.fetch_add(1, SeqCst);
    }
    fn age(&self, _: AtomicCallbackCx<'_>, _: VpnRange, kind: AgeKind) -> bool {
        match kind {
            AgeKind::Test => self.young.load(SeqCst),
            AgeKind::Clear | AgeKind::ClearFlush => self.young.swap(false, SeqCst),
        }
    }
    fn release(&self, _: CallbackCx<'_>) {
        self.tell(Told::Release);
    }
}

/// A driver that sleeps in its callback: it refuses atomic windows.
struct Sleeper {
    gate: Gate<OrderedStore<u64>, (), Sleepable>,
    ends: AtomicU32,
}

impl Sleeper {
    fn new(seat: Seat) -> Arc<Self> {
        Arc::new(Self {
            gate: Gate::new(seat, OrderedStore::default(), ()),
            ends: AtomicU32::new(0),
        })
    }
}

impl ExternalMmu for Sleeper {
    fn invalidate_start<'i>(&self, cx: CallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        self.gate
            .exclude(cx, inv, |(), _, mut cx| cx.sleep(Duration::from_micros(50)))
    }
    fn invalidate_end(&self, _: AtomicCallbackCx<'_>, _: VpnRange) {
        self.ends.fetch_add(1, SeqCst);
    }
}

/// A world with one driver.
macro_rules! with_driver {
    ($cx:ident, $mm:ident, $driver:ident, $reg:ident: $kind:ty) => {
        let machine = Machine::new(MachineConfig::default());
        let mut thread = machine.enter().unwrap();
        let mut $cx = thread.cx();
        let $mm = world(&mut $cx, &machine);
        let ($driver, $reg) = $mm.register(&mut $cx, <$kind>::new);
    };
}

#[test]
fn a_window_drops_entries_and_its_end_lets_new_ones_in() {
    with_driver!(cx, mm, d, reg: Spinner);
    mm.store(&mut cx, BASE, 7).unwrap();
    assert_eq!(d.try_touch(&mut cx, &mm, 0, Access::Read), Ok(7));
    assert_eq!(d.entries(&mut cx), 1);
    mm.madvise(&mut cx, BASE, PAGE, Advice::DontNeed).unwrap();
    assert_eq!(d.entries(&mut cx), 0);
    assert_eq!(d.take(), [Told::Start(pages(0, 1)), Told::End(pages(0, 1))]);
    assert_eq!(d.try_touch(&mut cx, &mm, 0, Access::Read), Ok(0));
    mm.unregister(&mut cx, reg);
}

#[test]
fn a_ticket_is_stale_after_a_window_over_its_page_and_current_after_one_elsewhere() {
    with_driver!(cx, mm, d, reg: Spinner);
    let stale = mm
        .resolve(&mut cx, d.gate.ticket(page(0), Access::Read))
        .unwrap();
    mm.madvise(&mut cx, BASE, PAGE, Advice::DontNeed).unwrap();
    assert_eq!(stale.admit(&mut cx).err(), Some(Retry::Stale));
    let current = mm
        .resolve(&mut cx, d.gate.ticket(page(0), Access::Read))
        .unwrap();
    mm.madvise(&mut cx, BASE + PAGE, PAGE, Advice::DontNeed)
        .unwrap();
    assert!(current.admit(&mut cx).is_ok());
    mm.unregister(&mut cx, reg);
}

#[test]
fn windows_elsewhere_make_no_ticket_stale_however_many() {
    with_driver!(cx, mm, d, reg: Spinner);
    let pending = mm
        .resolve(&mut cx, d.gate.ticket(page(0), Access::Read))
        .unwrap();
    for _ in 0..1000 {
        mm.madvise(&mut cx, BASE + PAGE, PAGE, Advice::DontNeed)
            .unwrap();
    }
    assert!(pending.admit(&mut cx).is_ok());
    mm.unregister(&mut cx, reg);
}

#[test]
fn an_open_window_holds_off_its_range_and_no_other() {
    with_driver!(cx, mm, d, reg: Spinner);
    let (open, go) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|s| {
        s.spawn(|| {
            let mut thread = mm.machine().enter().unwrap();
            let mut cx = thread.cx();
            let mut g = mm.lock_shared(&mut cx);
            let mut lease = g.lease();
            let window = lease.window(pages(0, 4), Event::Clear);
            open.store(true, SeqCst);
            while !go.load(SeqCst) {
                std::thread::yield_now();
            }
            window.close();
        });
        while !open.load(SeqCst) {
            std::thread::yield_now();
        }
        assert_eq!(mm.windows_open(), 1);
        assert_eq!(d.try_touch(&mut cx, &mm, 3, Access::Read), Err(Retry::Busy));
        assert_eq!(d.try_touch(&mut cx, &mm, 4, Access::Read), Ok(0));
        go.store(true, SeqCst);
    });
    assert_eq!(mm.windows_open(), 0);
    assert_eq!(d.try_touch(&mut cx, &mm, 3, Access::Read), Ok(0));
    mm.unregister(&mut cx, reg);
}

#[test]
fn a_permit_writes_only_if_its_ticket_was_for_writing() {
    with_driver!(cx, mm, d, reg: Spinner);
    for (access, may) in [(Access::Read, false), (Access::Write, true)] {
        d.touch(&mut cx, &mm, 0, access);
        let pending = mm.resolve(&mut cx, d.gate.ticket(page(0), access)).unwrap();
        let mut permit = pending.admit(&mut cx).unwrap();
        assert_eq!(permit.frame_mut().is_some(), may);
        let mut guard = permit.establish(0);
        assert_eq!(guard.lookup_mut(&0).is_some(), may);
        if let Some(mut view) = guard.lookup_mut(&0) {
            view.write(0, &[42]);
        }
    }
    assert_eq!(mm.load(&mut cx, BASE), Ok(42));
    mm.unregister(&mut cx, reg);
}

#[test]
fn resolving_copies_on_write_and_obeys_the_rights() {
    with_driver!(cx, mm, d, reg: Spinner);
    mm.store(&mut cx, BASE, 1).unwrap();
    let child = mm.fork(&mut cx).unwrap();
    assert_eq!(d.touch(&mut cx, &mm, 0, Access::Write), 1);
    let view_byte = d.read(&mut cx, &mm, 0).unwrap();
    child.store(&mut cx, BASE, 2).unwrap();
    assert_eq!((view_byte, d.read(&mut cx, &mm, 0)), (1, Ok(1)));
    mm.mprotect(&mut cx, BASE, PAGE, Prot::READ).unwrap();
    let denied = mm.resolve(&mut cx, d.gate.ticket(page(0), Access::Write));
    assert_eq!(denied.err(), Some(FaultError::Denied(BASE)));
    let missing = mm.resolve(&mut cx, d.gate.ticket(page(64), Access::Read));
    assert_eq!(missing.err(), Some(FaultError::NotMapped(page(64).addr())));
    mm.unregister(&mut cx, reg);
}

#[test]
fn a_ticket_of_another_address_space_is_refused() {
    with_driver!(cx, mm, d, reg: Spinner);
    let other = world(&mut cx, mm.machine());
    let wrong = other.resolve(&mut cx, d.gate.ticket(page(0), Access::Read));
    assert_eq!(wrong.err(), Some(FaultError::WrongAddressSpace));
    let (_d2, reg2) = other.register(&mut cx, Spinner::new);
    let wrong = other.resolve(&mut cx, d.gate.ticket(page(0), Access::Read));
    assert_eq!(wrong.err(), Some(FaultError::WrongAddressSpace));
    other.unregister(&mut cx, reg2);
    mm.unregister(&mut cx, reg);
}

#[test]
fn a_refused_atomic_window_tells_the_end_to_those_who_had_agreed() {
    with_driver!(cx, mm, sleeper, sleepy: Sleeper);
    // The last to register is asked first.
    let (spinner, spinny) = mm.register(&mut cx, Spinner::new);
    {
        let mut g = mm.lock_shared(&mut cx);
        let refused = g.lease().try_window(pages(0, 2), Event::Clear).err();
        assert_eq!(refused, Some(WouldBlock));
    }
    assert_eq!(
        spinner.take(),
        [Told::Start(pages(0, 2)), Told::End(pages(0, 2))]
    );
    assert_eq!((sleeper.ends.load(SeqCst), mm.windows_open()), (0, 0));
    mm.unregister(&mut cx, sleepy);
    let mut g = mm.lock_shared(&mut cx);
    assert!(g.lease().try_window(pages(0, 2), Event::Clear).is_ok());
    drop(g);
    mm.unregister(&mut cx, spinny);
}

#[test]
fn nested_and_overlapping_windows_end_one_by_one() {
    with_driver!(cx, mm, d, reg: Spinner);
    let mut g = mm.lock_shared(&mut cx);
    let mut lease = g.lease();
    lease.with_window(pages(0, 8), Event::Unmap, |_| ());
    drop(g);
    assert_eq!(d.starts.load(SeqCst), d.ends.load(SeqCst));
    mm.unregister(&mut cx, reg);
}

#[test]
fn aging_asks_everybody_and_clears_everybody() {
    with_driver!(cx, mm, a, ra: Spinner);
    let (b, rb) = mm.register(&mut cx, Spinner::new);
    a.young.store(true, SeqCst);
    b.young.store(true, SeqCst);
    assert!(mm.age(&mut cx, pages(0, 1), AgeKind::Test));
    assert!(mm.age(&mut cx, pages(0, 1), AgeKind::ClearFlush));
    assert!(!a.young.load(SeqCst) && !b.young.load(SeqCst));
    assert!(!mm.age(&mut cx, pages(0, 1), AgeKind::Clear));
    mm.load(&mut cx, BASE).unwrap();
    assert!(mm.age(&mut cx, pages(0, 1), AgeKind::Clear));
    assert!(!mm.age(&mut cx, pages(0, 1), AgeKind::Test));
    mm.unregister(&mut cx, ra);
    mm.unregister(&mut cx, rb);
}

#[test]
fn release_comes_exactly_once_whether_by_exit_or_by_unregistration() {
    with_driver!(cx, mm, a, ra: Spinner);
    let (b, rb) = mm.register(&mut cx, Spinner::new);
    mm.unregister(&mut cx, ra);
    let released = |d: &Spinner| d.take().iter().filter(|t| **t == Told::Release).count();
    assert_eq!((released(&a), released(&b)), (1, 0));
    mm.exit(&mut cx);
    assert_eq!((released(&a), released(&b)), (0, 1));
    mm.unregister(&mut cx, rb);
    mm.exit(&mut cx);
    assert_eq!((released(&a), released(&b)), (0, 0));
}

#[test]
fn after_unregistration_no_permit_no_entry_no_callback() {
    with_driver!(cx, mm, d, reg: Spinner);
    d.try_touch(&mut cx, &mm, 0, Access::Read).unwrap();
    let pending = mm
        .resolve(&mut cx, d.gate.ticket(page(1), Access::Read))
        .unwrap();
    mm.unregister(&mut cx, reg);
    assert_eq!(d.entries(&mut cx), 0);
    assert_eq!(pending.admit(&mut cx).err(), Some(Retry::Detached));
    d.take();
    mm.munmap(&mut cx, BASE, 64 * PAGE).unwrap();
    assert_eq!(d.take(), []);
}

#[test]
#[should_panic(expected = "gate of another registration")]
fn another_drivers_gate_does_not_count() {
    /// It has a gate of its own, and answers with that of another.
    struct Thief(Arc<Spinner>, #[expect(dead_code)] Gate<NoStore, (), Atomic>);
    impl ExternalMmu for Thief {
        fn invalidate_start<'i>(&self, cx: CallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
            self.0.gate.exclude(cx, inv, |(), _, _| ())
        }
    }
    with_driver!(cx, mm, d, _reg: Spinner);
    let (_thief, _thiefs) = mm.register(&mut cx, |seat| {
        let own = Gate::new(seat, NoStore, ());
        Arc::new(Thief(d, own))
    });
    mm.munmap(&mut cx, BASE, PAGE).unwrap();
}

/// An object that owns an address space and its driver can be dropped on any thread.
#[test]
fn an_address_space_with_a_driver_is_ended_where_its_last_handle_goes() {
    for with_a_token in [true, false] {
        with_driver!(cx, mm, d, reg: Spinner);
        let machine = Arc::clone(mm.machine());
        mm.store(&mut cx, BASE, 7).unwrap();
        d.try_touch(&mut cx, &mm, 0, Access::Read).unwrap();
        d.take();
        if with_a_token {
            drop(mm);
        } else {
            std::thread::scope(|s| s.spawn(|| drop(mm)).join().unwrap());
        }
        let released = d.take().into_iter().filter(|t| *t == Told::Release);
        assert_eq!(released.count(), 1);
        assert_eq!((d.entries(&mut cx), machine.mem().in_use()), (0, 0));
        reg.unregister(&mut cx);
        assert_eq!(d.take(), []);
    }
}

#[test]
fn a_callback_that_panics_closes_its_window() {
    struct Bomb(Gate<OrderedStore<u64>, (), Atomic>, AtomicBool);
    impl ExternalMmu for Bomb {
        fn invalidate_start<'i>(&self, cx: CallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
            assert!(!self.1.swap(false, SeqCst), "boom");
            self.0.exclude(cx, inv, |(), _, _| ())
        }
    }
    with_driver!(cx, mm, d, reg: Spinner);
    let (_bomb, fuse) = mm.register(&mut cx, |seat| {
        let gate = Gate::new(seat, OrderedStore::default(), ());
        Arc::new(Bomb(gate, AtomicBool::new(true)))
    });
    let boom = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        mm.munmap(&mut cx, BASE, PAGE).unwrap();
    }));
    assert!(boom.is_err());
    assert_eq!(mm.windows_open(), 0);
    assert_eq!(d.starts.load(SeqCst), d.ends.load(SeqCst));
    let machine = Arc::clone(mm.machine());
    std::thread::scope(|s| {
        s.spawn(|| {
            let mut thread = machine.enter().unwrap();
            let mut cx = thread.cx();
            mm.unregister(&mut cx, fuse);
            mm.unregister(&mut cx, reg);
        });
    });
}

/// Whether a window over `range` gets by while somebody holds the gate. Where it must, it is waited
/// for as long as it takes.
fn passes_held_gate(
    mm: &Mm,
    d: &Spinner,
    cx: &mut CallCx<'_>,
    range: VpnRange,
    must: bool,
) -> bool {
    let time = Duration::from_millis(if must { 600_000 } else { 50 });
    let (held, is_held) = std::sync::mpsc::channel();
    let (done, is_done) = std::sync::mpsc::channel();
    std::thread::scope(|s| {
        let holder = s.spawn(move || {
            let mut thread = mm.machine().enter().unwrap();
            let mut cx = thread.cx();
            let gate = d.gate.lock(&mut cx);
            held.send(()).unwrap();
            let passed = is_done.recv_timeout(time).is_ok();
            drop(gate);
            passed
        });
        is_held.recv().unwrap();
        mm.lock_shared(cx)
            .lease()
            .window(range, Event::Clear)
            .close();
        let _gone_if_late = done.send(());
        holder.join().unwrap()
    })
}

#[test]
fn a_window_takes_a_gate_only_where_it_may_have_entries() {
    let machine = Machine::new(MachineConfig::default());
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let mm = world(&mut cx, &machine);
    let (d, reg) = mm.register(&mut cx, Spinner::new);
    let beside = pages(512, 513);
    assert!(passes_held_gate(&mm, &d, &mut cx, pages(0, 64), true));
    d.touch(&mut cx, &mm, 3, Access::Read);
    assert!(passes_held_gate(&mm, &d, &mut cx, beside, true));
    assert!(!passes_held_gate(&mm, &d, &mut cx, pages(4, 5), false));
    assert_eq!(d.entries(&mut cx), 1);
    // A wide window asks nobody what he has.
    assert!(!passes_held_gate(&mm, &d, &mut cx, VpnRange::ALL, false));
    assert_eq!(d.entries(&mut cx), 0);
    assert!(passes_held_gate(&mm, &d, &mut cx, pages(0, 64), true));
    mm.unregister(&mut cx, reg);
}

#[test]
fn drivers_come_and_go_while_windows_open_on_other_threads() {
    let machine = Machine::new(MachineConfig::default());
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let mm = world(&mut cx, &machine);
    let stop = AtomicBool::new(false);
    std::thread::scope(|s| {
        for lane in 0..2 {
            let (mm, stop, machine) = (&mm, &stop, &machine);
            s.spawn(move || {
                let mut thread = machine.enter().unwrap();
                let mut cx = thread.cx();
                let mut n: u64 = 0;
                while !stop.load(SeqCst) {
                    let at = BASE + (lane * 32 + n % 32) * PAGE;
                    mm.store(&mut cx, at, 1).unwrap();
                    mm.madvise(&mut cx, at, PAGE, Advice::DontNeed).unwrap();
                    n += 1;
                }
            });
        }
        for round in 0..200 {
            let (d, reg) = mm.register(&mut cx, Spinner::new);
            for n in 0..8 {
                d.read(&mut cx, &mm, (round + n) % 64).unwrap();
            }
            mm.unregister(&mut cx, reg);
            assert_eq!(d.starts.load(SeqCst), d.ends.load(SeqCst));
            let told = d.take();
            assert_eq!(told.last(), Some(&Told::Release));
            assert_eq!(d.entries(&mut cx), 0);
        }
        stop.store(true, SeqCst);
    });
    assert_eq!(mm.windows_open(), 0);
    mm.exit(&mut cx);
    assert_eq!(machine.mem().in_use(), 0);
}

/// The core property under load: a driver that reads through its table never meets a frame that was
/// given back (the view panics), and never a value of before an invalidation that it has answered.
#[test]
fn readers_never_meet_a_stale_frame() {
    with_driver!(cx, mm, d, reg: Spinner);
    let stop = AtomicBool::new(false);
    std::thread::scope(|s| {
        for seed in 0..3_u64 {
            let (mm, d, stop) = (&mm, &d, &stop);
            s.spawn(move || {
                let mut thread = mm.machine().enter().unwrap();
                let mut cx = thread.cx();
                let mut n = seed;
                while !stop.load(SeqCst) {
                    n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    d.read(&mut cx, mm, (n >> 33) % 64).unwrap();
                }
            });
        }
        for round in 0..3000_u64 {
            let at = BASE + (round * 7 % 60) * PAGE;
            match round % 4 {
                0 => mm.store(&mut cx, at, 1).unwrap(),
                1 => mm.madvise(&mut cx, at, 4 * PAGE, Advice::DontNeed).unwrap(),
                2 => {
                    let args = MmapArgs::anonymous(2 * PAGE).fixed(at);
                    mm.mmap(&mut cx, &args).map(|_| ()).unwrap();
                }
                _ => mm.fork(&mut cx).unwrap().exit(&mut cx),
            }
        }
        stop.store(true, SeqCst);
    });
    mm.unregister(&mut cx, reg);
    mm.exit(&mut cx);
    assert_eq!(mm.machine().mem().in_use(), 0);
}
