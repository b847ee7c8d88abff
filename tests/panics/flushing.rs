//! A driver panics while its gate removes entries: at the flush of its TLBs, or before its gate.

use crate::common::{BASE, PAGE, RW, at, machine};
use emmu::{
    Machine, Mm,
    addr::{Pfn, Vpn, VpnRange},
    ctx::{Atomic, AtomicCallbackCx, CallCx},
    driver::SpinningMmu,
    frame::FrameFlags,
    mm::MmapArgs,
    notifier::{
        Access, Ack, Gate, Gates, Invalidation, OrderedStore, Permit, Rearrange, Registration,
        RemovedEntries, Seat, ShadowEntry, ShadowStore,
    },
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

/// The way in which the entries of a driver go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Exclude,
    TryExclude,
    Forget,
    Rearrange,
}

/// A store that can be emptied.
#[derive(Default)]
struct Store(OrderedStore<u64>);

impl ShadowStore for Store {
    type Key = u64;
    fn insert(&mut self, key: u64, entry: ShadowEntry) -> RemovedEntries {
        self.0.insert(key, entry)
    }
    fn get(&self, key: &u64) -> Option<&ShadowEntry> {
        self.0.get(key)
    }
    fn remove(&mut self, key: &u64) -> Option<ShadowEntry> {
        self.0.remove(key)
    }
    fn remove_range(&mut self, range: VpnRange, gone: &mut RemovedEntries) {
        self.0.remove_range(range, gone);
    }
    fn for_each(&self, visit: &mut dyn FnMut(&ShadowEntry)) {
        self.0.for_each(visit);
    }
}

impl Rearrange for Store {
    type How = ();
    fn rearrange(&mut self, (): (), gone: &mut RemovedEntries) {
        self.0.remove_range(VpnRange::ALL, gone);
    }
}

/// A switch that panics once when it is on.
#[derive(Default)]
struct Fuse(AtomicBool);

impl Fuse {
    fn burn(&self) {
        assert!(!self.0.swap(false, Relaxed), "flush");
    }
    fn blows(&self, work: impl FnOnce()) {
        self.0.store(true, Relaxed);
        let ended = catch_unwind(AssertUnwindSafe(work));
        assert!(ended.is_err() && !self.0.load(Relaxed), "it does not panic");
    }
}

struct OneGate {
    gate: Gate<Store, (), Atomic>,
    way: Way,
    early: Fuse,
    fuse: Fuse,
}

impl SpinningMmu for OneGate {
    fn invalidate<'i>(&self, cx: AtomicCallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        self.early.burn();
        if self.way == Way::TryExclude {
            let flush = |(): &mut (), _| self.fuse.burn();
            return self.gate.try_exclude(cx, inv, flush).expect("not locked");
        }
        self.gate.exclude(cx, inv, |(), _, _| self.fuse.burn())
    }
}

struct ManyGates {
    gates: Gates<Store, (), Atomic>,
    fuse: Fuse,
}

impl SpinningMmu for ManyGates {
    fn invalidate<'i>(&self, mut cx: AtomicCallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        self.gates
            .exclude_with(&mut cx, inv, |_, _, (), _| self.fuse.burn())
    }
}

fn one_gate(way: Way) -> impl FnOnce(Seat) -> Arc<OneGate> {
    move |seat| {
        Arc::new(OneGate {
            gate: Gate::new(seat, Store::default(), ()),
            way,
            early: Fuse::default(),
            fuse: Fuse::default(),
        })
    }
}

fn page() -> Vpn {
    Vpn::containing(BASE)
}

/// An address space of one page, which holds 1.
fn space(cx: &mut CallCx<'_>, machine: &Arc<Machine>) -> Arc<Mm> {
    let mm = Mm::new(machine);
    let args = MmapArgs::anonymous(PAGE).fixed(BASE).prot(RW);
    mm.mmap(cx, &args).unwrap();
    mm.store(cx, at(0), 1).unwrap();
    mm
}

/// Writes 7 to the page, and enters it with a reference and a dirty bit that the frame does not
/// know of yet.
fn dirty_entry(mut permit: Permit<'_, Store, (), Atomic>) -> Pfn {
    let mut frame = permit.frame_mut().expect("for writing");
    frame.write_deferring_dirty(0, &[7]);
    let pfn = permit.pfn();
    let guard = permit.establish_held(0);
    guard.store().get(&0).unwrap().set_dirty();
    pfn
}

/// The frame is known to be written, and all that was taken can be given back.
fn check(cx: &mut CallCx<'_>, mm: &Mm, pfn: Pfn, registration: Registration) {
    let mem = mm.machine().mem();
    let flags = mem.flags(pfn);
    assert!(flags.contains(FrameFlags::DIRTY), "{flags:?}");
    assert_eq!((mm.load(cx, at(0)), mem.refcount(pfn)), (Ok(7), 1));
    registration.unregister(cx);
    mm.exit(cx);
    assert_eq!(mem.in_use(), 0);
}

fn lost_nothing(way: Way) {
    let machine = machine(64);
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let mm = space(&mut cx, &machine);
    let (driver, registration) = mm.register(&mut cx, one_gate(way));
    let gate = &driver.gate;
    let pfn = gate.translate(&mut cx, &mm, page(), Access::Write, dirty_entry);
    let pfn = pfn.unwrap();
    driver.fuse.blows(|| match way {
        Way::Exclude | Way::TryExclude => mm.munmap(&mut cx, BASE, PAGE).unwrap(),
        Way::Forget => {
            let all = VpnRange::ALL;
            gate.lock(&mut cx)
                .forget_range(all, |()| driver.fuse.burn());
        }
        Way::Rearrange => gate.lock(&mut cx).rearrange((), |()| driver.fuse.burn()),
    });
    check(&mut cx, &mm, pfn, registration);
}

#[test]
fn entries_whose_flush_panics_are_given_up_and_their_dirty_bits_are_not_lost() {
    for way in [Way::Exclude, Way::TryExclude, Way::Forget, Way::Rearrange] {
        lost_nothing(way);
    }
}

#[test]
fn so_are_those_of_several_gates() {
    let machine = machine(64);
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let mm = space(&mut cx, &machine);
    let (driver, registration) = mm.register(&mut cx, |seat: Seat| {
        Arc::new(ManyGates {
            gates: Gates::new(seat, || (Store::default(), ())),
            fuse: Fuse::default(),
        })
    });
    let gates = &driver.gates;
    let pfn = gates.translate(&mut cx, &mm, page(), Access::Write, dirty_entry);
    let pfn = pfn.unwrap();
    driver
        .fuse
        .blows(|| mm.munmap(&mut cx, BASE, PAGE).unwrap());
    check(&mut cx, &mm, pfn, registration);
}

/// The driver keeps its entry, since it panics before it comes to its gate; and a child has the
/// page alone from then on.
#[test]
fn a_gate_gives_nothing_out_once_its_address_space_has_ended() {
    let machine = machine(64);
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let mm = space(&mut cx, &machine);
    let (driver, _registration) = mm.register(&mut cx, one_gate(Way::Exclude));
    let child = mm.fork(&mut cx).unwrap();
    let gate = &driver.gate;
    let read = gate.translate(&mut cx, &mm, page(), Access::Read, |permit| {
        permit.establish(0).lookup(&0).map(|view| view.read_u8(0))
    });
    assert_eq!(read, Ok(Some(1)));
    driver.early.blows(|| mm.exit(&mut cx));
    child.store(&mut cx, at(0), 99).unwrap();
    let guard = gate.lock(&mut cx);
    assert!(guard.store().get(&0).is_some(), "it was not removed");
    assert!(guard.lookup(&0).is_none() && guard.cached(&0).is_none());
    drop(guard);
    child.exit(&mut cx);
}
