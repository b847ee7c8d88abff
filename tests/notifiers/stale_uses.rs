//! The oracle reports a copy of a translation that is followed after a window over its page has
//! opened, and no other copy.

use crate::common::{BASE, PAGE, at, numbered::page};
use emmu::{
    Machine, MachineConfig, Mm,
    addr::{Vpn, VpnRange},
    ctx::{Atomic, CallCx},
    driver::SpinningMmu,
    mm::{Advice, MmapArgs, Prot},
    notifier::{
        Access, Ack, Cached, Event, ExternalMmu, Gate, Invalidation, NoStore, Seat, Translation,
    },
    oracle::{Finding, Oracle},
};
use std::sync::Arc;

/// A device that hands its copies out; the test plays its TLB.
struct Lender(Gate<NoStore, (), Atomic>);

impl SpinningMmu for Lender {
    fn invalidate<'i>(
        &self,
        cx: emmu::ctx::AtomicCallbackCx<'_>,
        inv: Invalidation<'i>,
    ) -> Ack<'i> {
        self.0.exclude(cx, inv, |(), _, _| ())
    }
    fn translations(&self, _: &mut dyn FnMut(Translation)) -> bool {
        true
    }
    fn name(&self) -> &'static str {
        "a lender"
    }
}

impl Lender {
    fn new(seat: Seat) -> Arc<Self> {
        Arc::new(Self(Gate::new(seat, NoStore, ())))
    }
    fn lend(&self, cx: &mut CallCx<'_>, mm: &Mm, n: u64) -> Cached {
        let lent = self
            .0
            .translate(cx, mm, page(n), Access::Write, |p| p.cached());
        lent.unwrap()
    }
    fn reads(&self, cached: &Cached, n: u64) {
        let _view = self.0.follow(cached, page(n)).expect("its page");
    }
}

struct World<'w, 'c> {
    cx: &'w mut CallCx<'c>,
    mm: Arc<Mm>,
    device: Arc<Lender>,
    oracle: Arc<Oracle>,
}

impl World<'_, '_> {
    fn lend(&mut self, n: u64) -> Cached {
        self.device.lend(self.cx, &self.mm, n)
    }
    fn drop_page(&mut self, n: u64) {
        self.mm
            .madvise(self.cx, at(n), PAGE, Advice::DontNeed)
            .unwrap();
    }
    fn window(&mut self, from: u64, to: u64, f: impl FnOnce()) {
        let range = VpnRange::new(page(from), page(to)).unwrap();
        let mut g = self.mm.lock_shared(self.cx);
        g.lease().with_window(range, Event::Clear, |_| f());
    }
    /// Checks that the uses so far were stale, in this order.
    fn stale(&self, wanted: &[(u64, Access, (u64, u64))]) {
        let found = self.oracle.take().into_iter().map(|f| match f {
            Finding::StaleUse {
                mmu,
                at,
                access,
                window,
            } => {
                assert_eq!(mmu, "a lender");
                (at, access, window)
            }
            other => panic!("{other}"),
        });
        let range = |(from, to)| VpnRange::new(page(from), page(to)).unwrap();
        let wanted = wanted
            .iter()
            .map(|&(n, access, w)| (page(n), access, range(w)));
        let wanted: Vec<(Vpn, Access, VpnRange)> = wanted.collect();
        assert_eq!(found.collect::<Vec<_>>(), wanted);
    }
}

fn attach(
    cx: &mut CallCx<'_>,
    machine: &Arc<Machine>,
    oracle: Option<&Arc<Oracle>>,
) -> (Arc<Mm>, Arc<Lender>) {
    let mm = Mm::new(machine);
    let args = MmapArgs::anonymous(1024 * PAGE).fixed(BASE);
    mm.mmap(cx, &args).unwrap();
    let (device, _stays) = mm.register(cx, Lender::new);
    if let Some(oracle) = oracle {
        oracle.watch(&mm, Arc::clone(&device) as Arc<dyn ExternalMmu>);
    }
    (mm, device)
}

fn world(f: impl FnOnce(&mut World<'_, '_>)) {
    let machine = Machine::new(MachineConfig::default());
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let oracle = Oracle::new(&machine);
    let (mm, device) = attach(&mut cx, &machine, Some(&oracle));
    let mut world = World {
        cx: &mut cx,
        mm,
        device,
        oracle,
    };
    f(&mut world);
    world.mm.exit(world.cx);
    world.oracle.assert_silent();
}

#[test]
fn a_copy_is_stale_from_the_opening_of_a_window_over_its_page() {
    world(|w| {
        let (first, other) = (w.lend(3), w.lend(4));
        w.device.reads(&first, 3);
        w.window(0, 3, || ());
        w.device.reads(&first, 3);
        w.stale(&[]);
        let device = Arc::clone(&w.device);
        w.window(2, 4, || device.reads(&first, 3));
        w.device.reads(&first, 3);
        w.device.reads(&other, 4);
        w.stale(&[(3, Access::Read, (2, 4)), (3, Access::Read, (2, 4))]);
        let again = w.lend(3);
        w.device.reads(&again, 3);
        w.device.reads(&first.read_only(), 3);
        w.stale(&[(3, Access::Read, (2, 4))]);
    });
}

#[test]
fn a_fork_makes_the_copies_of_the_parent_stale() {
    world(|w| {
        w.mm.store(w.cx, at(3), 7).unwrap();
        let cached = w.lend(3);
        let child = w.mm.fork(w.cx).unwrap();
        let mut view = w.device.0.follow_mut(&cached, page(3)).unwrap();
        view.write(0, &[99]);
        assert_eq!(child.load(w.cx, at(3)), Ok(99), "the damage");
        w.stale(&[(3, Access::Write, (0, 1024))]);
        child.exit(w.cx);
    });
}

/// Under the gate too: the copy was made before.
#[test]
fn a_copy_that_comes_back_under_the_gate_is_stale() {
    world(|w| {
        let cached = w.lend(3);
        let mut gate = w.device.0.lock(w.cx);
        assert!(gate.follow(&cached, page(3)).is_some());
        assert!(gate.follow_mut(&cached, page(3)).is_some());
        drop(gate);
        w.stale(&[]);
        w.drop_page(3);
        let mut gate = w.device.0.lock(w.cx);
        assert!(gate.follow(&cached, page(3)).is_some());
        assert!(gate.follow_mut(&cached, page(3)).is_some());
        drop(gate);
        w.stale(&[(3, Access::Read, (3, 4)), (3, Access::Write, (3, 4))]);
    });
}

#[test]
fn a_pending_frame_is_as_old_as_its_look_up() {
    world(|w| {
        let device = Arc::clone(&w.device);
        let ticket = device.0.ticket(page(3), Access::Read);
        w.window(3, 4, || ());
        let fresh = w.mm.resolve(w.cx, ticket).unwrap().vouch().unwrap();
        w.device.reads(&fresh, 3);
        w.stale(&[]);
        let ticket = device.0.ticket(page(3), Access::Read);
        // What purges would cancel, and this device does not.
        let pending = w.mm.resolve(w.cx, ticket).unwrap();
        w.window(3, 4, || ());
        let late = pending.vouch().unwrap();
        w.device.reads(&late, 3);
        w.stale(&[(3, Access::Read, (3, 4))]);
    });
}

#[test]
fn a_part_of_a_huge_page_is_judged_for_itself() {
    world(|w| {
        w.mm.madvise(w.cx, BASE, 512 * PAGE, Advice::HugePage)
            .unwrap();
        w.mm.store(w.cx, at(5), 1).unwrap();
        let ticket = w.device.0.ticket(page(5), Access::Write).allow_huge();
        let permit = w.mm.resolve(w.cx, ticket).unwrap().admit(w.cx).unwrap();
        let cached = permit.cached();
        drop(permit);
        assert_eq!(cached.range().pages(), 512);
        w.window(100, 102, || ());
        w.device.reads(&cached, 99);
        w.device.reads(&cached, 101);
        w.stale(&[(101, Access::Read, (100, 102))]);
    });
}

#[test]
fn the_last_of_several_windows_is_named() {
    world(|w| {
        let cached = w.lend(3);
        w.drop_page(3);
        w.mm.mprotect(w.cx, at(2), 2 * PAGE, Prot::READ).unwrap();
        w.drop_page(4);
        w.device.reads(&cached, 3);
        w.stale(&[(3, Access::Read, (2, 4))]);
    });
}

/// Copies of another address space, and from before the oracle.
#[test]
fn windows_elsewhere_make_no_copy_stale() {
    world(|w| {
        let machine = Arc::clone(w.mm.machine());
        let (near, near_device) = attach(w.cx, &machine, Some(&w.oracle));
        let (late, late_device) = attach(w.cx, &machine, None);
        let early = late_device.lend(w.cx, &late, 3);
        w.oracle
            .watch(&late, Arc::clone(&late_device) as Arc<dyn ExternalMmu>);
        let near_copy = near_device.lend(w.cx, &near, 3);
        let own = w.lend(3);
        w.drop_page(3);
        near_device.reads(&near_copy, 3);
        late_device.reads(&early, 3);
        w.stale(&[]);
        w.device.reads(&own, 3);
        late.madvise(w.cx, at(3), PAGE, Advice::DontNeed).unwrap();
        late_device.reads(&early, 3);
        w.stale(&[(3, Access::Read, (3, 4)), (3, Access::Read, (3, 4))]);
        near.exit(w.cx);
        late.exit(w.cx);
    });
}

#[test]
fn windows_of_another_machine_make_no_copy_stale() {
    world(|w| {
        let cached = w.lend(3);
        let elsewhere = || {
            world(|other| {
                for _ in 0..8 {
                    let own = other.lend(3);
                    other.drop_page(3);
                    other.device.reads(&own, 3);
                    other.stale(&[(3, Access::Read, (3, 4))]);
                }
            });
        };
        std::thread::scope(|s| s.spawn(elsewhere).join().unwrap());
        w.device.reads(&cached, 3);
        w.stale(&[]);
    });
}
