//! Loom model of the armed miss: a purge against a drop-in whose page was looked up before.

use super::{GruContext, arm};
use crate::{
    extmmu::gru::{
        Gru, GruConfig,
        space::{GruMistake, GruSpace},
    },
    notifier::{
        Access,
        models::{PAGE, RANGE, World, run},
    },
};
use std::sync::{Arc, Weak};

fn armed_miss(mistake: Option<GruMistake>) {
    let world = World::new();
    let grus = Gru::several(
        1,
        GruConfig {
            tlb_entries: 2,
            ..GruConfig::default()
        },
    );
    let (space, _stays) = world.register(|seat| GruSpace::new(seat, Weak::new(), &grus, mistake));
    let context = GruContext::new(&space, 0).unwrap();
    context.load();
    // No window is open, so the driver knows that each one from now on calls it.
    drop(context.miss_ticket(PAGE.addr(), Access::Read));
    let w = Arc::clone(&world);
    let other = loom::thread::spawn(move || {
        // The steps of `instruct`, `interrupt` and `drop_in`, with one word for a page table.
        let serial = arm(&mut context.space.grus[0].lock(), context.id, PAGE.addr());
        let miss = context.armed(serial.expect("loaded"));
        if context.space.active() > 0 {
            drop(miss);
        } else {
            let ticket = context.miss_ticket(PAGE.addr(), Access::Read);
            let pfn = w.found();
            let pending = ticket.fill(RANGE, pfn, w.mem.generation(pfn), false);
            let cached = pending.vouch().expect("every window calls the driver");
            let _done = context.drop_in(PAGE.addr(), miss, cached, |s| &mut s.interrupt_dropins);
        }
        context
    });
    world.enter(|cx| {
        world.replace(cx, || {
            let chip = grus[0].lock();
            assert_eq!(chip.tlb.iter().count(), 0, "an entry inside a window");
        });
    });
    let _context = other.join().unwrap();
    let chip = grus[0].lock();
    for (_, cached) in chip.tlb.iter() {
        assert_eq!(cached.translation().pfn(), world.found(), "stale TLB entry");
    }
}

#[test]
fn gru_armed_miss() {
    run::holds("gru_armed_miss", || armed_miss(None));
}
#[test]
fn gru_purge_that_cancels_no_miss() {
    run::fails("gru_purge_that_cancels_no_miss", "stale TLB entry", || {
        armed_miss(Some(GruMistake::NoDisarm));
    });
}
