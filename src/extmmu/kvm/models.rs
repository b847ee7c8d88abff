//! Loom model of the machine's own account of windows: count and range under the mmu lock, sequence
//! before the look-up.
//!
//! Tickets are drawn late here, so permits do not notice windows that closed before, and the
//! account has to notice them alone. Pages of guest files have no other account.

use super::{
    Gfn, MemSlot, PageKind, SlotFlags, Vm, VmConfig,
    attributes::Stamp,
    guest_entries::{GuestEntries, Zap},
    guest_entry::GuestEntry,
};
use crate::{
    extmmu::kvm::tlbs::{TLB_ENTRIES, VcpuTlb},
    notifier::{
        Access,
        models::{PAGE, RANGE, World, run},
    },
    sync::{Ordering, thread},
};
use std::sync::{Arc, Weak};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wrong {
    Nothing,
    /// The sequence is read after the look-up.
    LateSequence,
}

const SLOT: MemSlot = MemSlot {
    id: 0,
    gfn: Gfn(0),
    pages: 1,
    hva: PAGE,
    flags: SlotFlags::empty(),
};

fn sequence(wrong: Wrong) {
    let world = World::new();
    let (vm, _stays) = world.register(|seat| Vm::new(seat, Weak::new(), VmConfig::default()));
    world.enter(|mut cx| vm.set_memory(&mut cx, SLOT)).unwrap();
    let tlb = VcpuTlb::new(TLB_ENTRIES.min(2));
    let (w, v, t) = (Arc::clone(&world), Arc::clone(&vm), Arc::clone(&tlb));
    let other = loom::thread::spawn(move || {
        w.enter(|mut cx| {
            for _ in 0..2 {
                let early = v.sequence_at(PAGE);
                let pfn = w.found();
                let seq = if wrong == Wrong::LateSequence {
                    v.sequence_at(PAGE)
                } else {
                    early
                };
                let ticket = v.gates.ticket(PAGE, Access::Read);
                let pending = ticket.fill(RANGE, pfn, w.mem.generation(pfn), false);
                if let Ok(permit) = pending.admit(&mut cx)
                    && v.establish(permit, &SLOT, Gfn(0), seq, &t, Access::Read)
                {
                    return;
                }
                thread::yield_now();
            }
        });
    });
    world.enter(|cx| {
        world.replace(cx, || {
            assert_eq!(
                tlb.lock().process.iter().count(),
                0,
                "an entry inside a window"
            );
        });
    });
    other.join().unwrap();
    for (_, cached) in tlb.lock().process.iter() {
        assert_eq!(cached.translation().pfn(), world.found(), "stale TLB entry");
    }
    assert_eq!(vm.in_progress(), (0, 0));
}

/// The page of a guest file is replaced inside of a window over its guest frame.
fn guest_window(wrong: Wrong) {
    let world = World::new();
    let entries = Arc::new(GuestEntries::default());
    entries.use_memory(&world.mem);
    let tlb = VcpuTlb::new(2);
    let (w, e, t) = (Arc::clone(&world), Arc::clone(&entries), Arc::clone(&tlb));
    let other = loom::thread::spawn(move || {
        for _ in 0..2 {
            let early = e.sequence();
            let pfn = w.found();
            let guest = match wrong {
                Wrong::LateSequence => e.sequence(),
                Wrong::Nothing => early,
            };
            let stamp = Stamp {
                process: 0,
                guest,
                slots: 0,
            };
            if let Ok(admitted) = e.admit(&stamp, Gfn(0)) {
                let entry = GuestEntry {
                    gfn: Gfn(0),
                    pfn,
                    generation: w.mem.generation(pfn),
                    kind: PageKind::Private,
                };
                return admitted.establish(entry, &t, false);
            }
            thread::yield_now();
        }
    });
    let window = entries.window(&[(Gfn(0), Gfn(1))], Zap::All);
    world.pte.store(2, Ordering::Release);
    assert_eq!(tlb.lock().guests().count(), 0, "an entry inside a window");
    drop(window);
    other.join().unwrap();
    for entry in tlb.lock().guests() {
        assert_eq!(entry.pfn, world.found(), "stale guest entry");
    }
    assert_eq!(entries.counts().1, 0);
}

#[test]
fn kvm_guest_window() {
    run::holds("kvm_guest_window", || guest_window(Wrong::Nothing));
}
#[test]
fn kvm_late_stamp() {
    run::fails("kvm_late_stamp", "stale guest entry", || {
        guest_window(Wrong::LateSequence)
    });
}
#[test]
fn kvm_sequence() {
    run::holds("kvm_sequence", || sequence(Wrong::Nothing));
}
#[test]
fn kvm_late_sequence() {
    run::fails("kvm_late_sequence", "stale TLB entry", || {
        sequence(Wrong::LateSequence)
    });
}
