//! A loom model of windows with an owner: the owner keeps translations of its own frames, and no
//! others.

use super::{PAGE, RANGE, World};
use crate::{
    addr::Pfn,
    ctx::{Atomic, CallCx, CallbackCx, Epoch},
    frame::{Contents, DeviceKind, DeviceMemory, MemConfig, PhysMem},
    notifier::{
        Access, Ack, ExternalMmu, Gate, Invalidation, Notifiers, OpenWindow, OrderedStore, Reason,
        Seat, ShadowStore,
    },
    sync::{AtomicU64, Ordering, thread},
};
use std::sync::Arc;

/// A driver with memory of its own, which keeps what it may.
struct Owner {
    gate: Gate<OrderedStore<u8>, (), Atomic>,
    memory: DeviceMemory,
}

impl ExternalMmu for Owner {
    fn invalidate_start<'i>(&self, cx: CallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        match inv.spare(&self.memory) {
            Some(spared) => self.gate.exclude_sparing(cx, inv, spared, |(), _, _| ()),
            None => self.gate.exclude(cx, inv, |(), _, _| ()),
        }
    }
}

impl Owner {
    /// Runs one attempt of a fault: loops must end under a checker.
    fn fault(&self, world: &World, cx: &mut CallCx<'_>) {
        let ticket = self.gate.ticket(PAGE, Access::Read);
        let pfn = world.found();
        let generation = world.mem.generation(pfn);
        match ticket.fill(RANGE, pfn, generation, false).admit(cx) {
            Ok(permit) => drop(permit.establish(0)),
            Err(_) => thread::yield_now(),
        }
    }
}

/// A page migrates to a device, in a window whose owner may keep its own frames, while the owner
/// looks the page up. The mistake: the page goes home in that window, which the opener promised
/// that it would not.
pub(super) fn owned_window_against_permit(mistake: bool) {
    let config = MemConfig {
        frames: 3,
        contents: Contents::None,
        swap: 0,
    };
    let mem = Arc::new(PhysMem::new(config).with_devices(1));
    let memory = DeviceMemory::new(&mem, DeviceKind::Private, 1).expect("a number");
    mem.close_device(memory.id(), false);
    let there = mem.alloc_on(&memory).expect("a frame").into_raw();
    let (from, to) = match mistake {
        false => (Pfn(1), there),
        true => (there, Pfn(1)),
    };
    let world = Arc::new(World {
        notifiers: Notifiers::new(),
        epoch: Epoch::new(),
        mem,
        pte: AtomicU64::new(from.0.into()),
    });
    let reason = Reason::migration(memory.id(), true);
    let (owner, _stays) = world.register(|seat: Seat| {
        let gate = Gate::new(seat, OrderedStore::default(), ());
        Arc::new(Owner { gate, memory })
    });
    let (w, o) = (Arc::clone(&world), Arc::clone(&owner));
    let other = loom::thread::spawn(move || w.enter(|mut cx| o.fault(&w, &mut cx)));
    world.enter(|cx| {
        let Ok(window) = OpenWindow::open(&world.notifiers, cx, RANGE, reason);
        world.pte.store(to.0.into(), Ordering::Release);
        drop(window);
    });
    other.join().unwrap();
    world.enter(|mut cx| {
        let held = owner.gate.lock(&mut cx).store().get(&0).map(|e| e.pfn());
        assert!(held.is_none_or(|pfn| pfn == to), "stale entry {held:?}");
    });
}
