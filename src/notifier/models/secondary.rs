//! Loom models of secondary TLBs: a frame goes after the flush, a device that is new walks after
//! the windows that do not flush it, and one that was released has nothing.

use super::{PAGE, RANGE, World};
use crate::{
    addr::VpnRange,
    ctx::AtomicCallbackCx,
    notifier::{
        Access, Flusher, SecondaryTlb, SecondaryTlbs, TlbGate, TlbRegistration, TlbSeat, Walked,
    },
    sync::{Ordering, RwLock},
};
use std::sync::{Arc, Weak};

struct Iommu(TlbGate<()>);

impl SecondaryTlb for Iommu {
    fn flush(&self, cx: AtomicCallbackCx<'_>, range: VpnRange) {
        self.0.flush(cx, range, |(), _| ());
    }
}

/// A page with frame 1.
fn page() -> (Arc<World>, Arc<SecondaryTlbs>) {
    let world = World::new();
    let _mapped = world.mem.alloc().expect("three frames").into_raw();
    (world, Arc::new(SecondaryTlbs::new()))
}

fn register(
    world: &World,
    tlbs: &SecondaryTlbs,
    drain: impl FnOnce(),
) -> (Arc<Iommu>, TlbRegistration) {
    let new = |seat: TlbSeat| Arc::new(Iommu(TlbGate::new(seat, ())));
    tlbs.register((&world.mem, Weak::<()>::new()), drain, new)
}

/// A page with frame 1, and a device.
fn world() -> (Arc<World>, Arc<SecondaryTlbs>, Arc<Iommu>, TlbRegistration) {
    let (world, tlbs) = page();
    let (device, registration) = register(&world, &tlbs, || ());
    (world, tlbs, device, registration)
}

fn walk(world: &World, device: &Iommu) {
    device.0.fill(PAGE, Access::Read, || {
        let pfn = world.found();
        (!pfn.is_zero()).then(|| Walked {
            pfn,
            generation: world.mem.generation(pfn),
            writable: false,
        })
    });
}

/// A device walks while a page goes. The mistake: the flush comes before the entry is emptied.
pub(super) fn flush_against_walk(mistake: bool) {
    let (world, tlbs, device, _stays) = world();
    let (w, d) = (Arc::clone(&world), Arc::clone(&device));
    let other = loom::thread::spawn(move || walk(&w, &d));
    world.enter(|mut cx| {
        let frame = world.mem.adopt(world.found());
        let mut flusher = Flusher::new(&tlbs, cx.descend());
        if mistake {
            let _too_early = flusher.flush(RANGE);
        }
        world.pte.store(0, Ordering::Release);
        if !mistake {
            let _paid = flusher.flush(RANGE);
        }
        drop(frame);
    });
    other.join().unwrap();
    assert!(device.0.cached().is_empty(), "a frame that went is cached");
}

/// A device walks while it is released. The mistake: everything is flushed before walks are
/// forbidden.
pub(super) fn release_against_walk(mistake: bool) {
    let (world, tlbs, device, registration) = world();
    let (w, d) = (Arc::clone(&world), Arc::clone(&device));
    let other = loom::thread::spawn(move || walk(&w, &d));
    world.enter(|mut cx| {
        if mistake {
            device.flush(cx.descend(), VpnRange::ALL);
            drop(registration);
        } else {
            registration.unregister(&mut cx);
        }
        assert_eq!(tlbs.listed().is_none(), !mistake);
    });
    other.join().unwrap();
    assert!(device.0.cached().is_empty(), "cached after the release");
}

/// A device registers and walks while a page goes, in a window of a walk over a reverse map: that
/// holds a lock which a registration drains. The mistake: it drains nothing.
pub(super) fn registration_of_a_walker(mistake: bool) {
    let (world, tlbs) = page();
    let walks = Arc::new(RwLock::new(()));
    let (w, t, held) = (Arc::clone(&world), Arc::clone(&tlbs), Arc::clone(&walks));
    let other = loom::thread::spawn(move || {
        let drain = || drop((!mistake).then(|| held.write()));
        let (device, registration) = register(&w, &t, drain);
        walk(&w, &device);
        (device, registration)
    });
    world.enter(|mut cx| {
        let walking = walks.read();
        let mut flusher = Flusher::new(&tlbs, cx.descend());
        let nothing = flusher.nothing_cached();
        let frame = world.mem.adopt(world.found());
        world.pte.store(0, Ordering::Release);
        let _paid = nothing.unwrap_or_else(|| flusher.flush(RANGE));
        drop(frame);
        drop(walking);
    });
    let (device, _stays) = other.join().unwrap();
    assert!(device.0.cached().is_empty(), "a frame that went is cached");
}
