//! Loom models of two savings: a window does not lock a gate without entries of its blocks, and
//! collects drivers without a pin.

use super::{Driver, PAGE, RANGE, World, check_coherent};
use crate::{
    addr::VpnRange,
    ctx::Epoch,
    notifier::{Access, Event, OpenWindow, epoch_list::EpochList},
    sync::{AtomicBool, Ordering, RaceProbe},
};
use std::sync::Arc;

/// Windows over blocks without entries do not lock the gate. The mistake: a permit does not note
/// its page.
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

/// A window over a neighbouring page has left an entry in the gate. The mistake: that window clears
/// the filter.
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

/// A fault beside a window while another ticket of the page is drawn, so that none is alone in its
/// bucket. The mistake: the page is looked up before the ticket is drawn.
pub(super) fn window_against_two_tickets(mistake: bool) {
    let world = World::new();
    let (driver, _stays) = world.register(Driver::new);
    let waits = driver.gate.ticket(PAGE, Access::Read);
    let (w, d) = (Arc::clone(&world), Arc::clone(&driver));
    let other = loom::thread::spawn(move || w.enter(|mut cx| d.fault(&w, &mut cx, mistake)));
    world.enter(|cx| world.replace(cx, || ()));
    other.join().unwrap();
    drop(waits);
    check_coherent(&world, &driver);
}

/// A value of the list, with a probe for uses of its memory after it left.
struct Member {
    gone: AtomicBool,
    memory: RaceProbe,
}

/// A value is inserted into the list and removed, beside a collection of all values. The mistake:
/// the removal does not wait for the collection.
pub(super) fn coming_and_going_against_call(mistake: bool) {
    let epoch = Epoch::new();
    let list = Arc::new(EpochList::<_>::new(epoch.clone(), ()));
    let (l, e) = (Arc::clone(&list), epoch.clone());
    let other = loom::thread::spawn(move || {
        let local = e.register();
        let call = l.try_collect().unwrap_or_else(|| l.collect(&local.pin()));
        for met in call.values() {
            let _: &Arc<Member> = met;
            assert!(!met.gone.load(Ordering::Relaxed), "called after it left");
            met.memory.read();
        }
    });
    let member = Arc::new(Member {
        gone: AtomicBool::new(false),
        memory: RaceProbe::new(),
    });
    let local = epoch.register();
    list.push(Arc::clone(&member), &local.pin());
    let unlinked = list.unlink(&local.pin(), |_| true).expect("it came");
    let drained = if mistake {
        unlinked.without_waiting()
    } else {
        unlinked.wait()
    };
    member.gone.store(true, Ordering::Relaxed);
    member.memory.write();
    drained.retire(&local.pin());
    other.join().unwrap();
}
