//! Loom models of what windows spare: a gate that has nothing of theirs, and a pin for whom they meet.

use super::{Driver, PAGE, RANGE, World, check_coherent};
use crate::{
    addr::VpnRange,
    ctx::Epoch,
    notifier::{Access, Event, OpenWindow, epoch_list::EpochList},
    sync::{AtomicBool, Ordering},
};
use std::sync::Arc;

/// A driver whose gate windows pass by that concern no entry of it. The mistake: a permit does not note where its entry comes.
pub(super) fn window_that_passes_a_gate(mistake: bool) {
    let world = World::new();
    let (driver, _stays) = world.register(Driver::of_entries);
    let (w, d) = (Arc::clone(&world), Arc::clone(&driver));
    let other = loom::thread::spawn(move || {
        w.enter(|mut cx| {
            let ticket = d.gate.ticket(PAGE, Access::Read);
            let pfn = w.found();
            let pending = ticket.fill(RANGE, pfn, w.mem.generation(pfn), false);
            let permit = if mistake {
                pending.admit_unnoted(&mut cx)
            } else {
                pending.admit(&mut cx)
            };
            drop(permit.map(|permit| permit.establish(0)));
        });
    });
    window_without_entries(&world, &driver);
    other.join().unwrap();
    check_coherent(&world, &driver);
}

fn window_without_entries(world: &World, driver: &Driver) {
    world.enter(|cx| {
        world.replace(cx, || {
            let seen = driver
                .gate
                .audit(&mut |_| panic!("an entry inside a window"));
            assert!(seen);
        });
    });
}

/// The same with an entry that a window beside it has left there. The mistake: that window has it forgotten where it is.
pub(super) fn window_that_finds_a_gate(mistake: bool) {
    let world = World::new();
    let (driver, _stays) = world.register(Driver::of_entries);
    world.enter(|mut cx| driver.fault(&world, &mut cx, false));
    let (w, d) = (Arc::clone(&world), Arc::clone(&driver));
    let other = loom::thread::spawn(move || {
        w.enter(|cx| {
            let beside = VpnRange::single(PAGE.plus(1));
            let Ok(window) = OpenWindow::open(&w.notifiers, cx, beside, Event::Clear);
            if mistake {
                d.gate.filter.clear();
            }
            drop(window);
        });
    });
    window_without_entries(&world, &driver);
    other.join().unwrap();
    check_coherent(&world, &driver);
}

/// Somebody comes to the list of drivers, and goes, beside a call of all. The mistake: he goes without waiting for it.
pub(super) fn coming_and_going_against_call(mistake: bool) {
    let epoch = Epoch::new();
    let list = Arc::new(EpochList::<_>::new(epoch.clone(), ()));
    let (l, e) = (Arc::clone(&list), epoch.clone());
    let other = loom::thread::spawn(move || {
        let local = e.register();
        let call = l.try_collect().unwrap_or_else(|| l.collect(&local.pin()));
        let gone = |met: &Arc<AtomicBool>| met.load(Ordering::Relaxed);
        assert!(!call.values().any(gone), "called after it left");
    });
    let (local, gone) = (epoch.register(), Arc::new(AtomicBool::new(false)));
    list.push(Arc::clone(&gone), &local.pin());
    let unlinked = list.unlink(&local.pin(), |_| true).expect("it came");
    let drained = if mistake {
        unlinked.without_waiting()
    } else {
        unlinked.wait()
    };
    gone.store(true, Ordering::Relaxed);
    drained.retire(&local.pin());
    other.join().unwrap();
}
