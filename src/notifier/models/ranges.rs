//! A loom model of range tickets: each piece has a stamp that was drawn before it was read.

use super::{Driver, World, check_coherent};
use crate::{
    addr::{PMD_PAGES, Pfn, Vpn, VpnRange},
    notifier::{FaultRequest, RangePending},
    sync::thread,
};
use std::sync::Arc;

/// A window over the first piece of a range while two pieces are looked up. The mistake: the stamp
/// of the first is drawn anew for the second, and vouches for both.
pub(super) fn range_against_window(mistake: bool) {
    let world = World::new();
    let (driver, _stays) = world.register(Driver::of_entries);
    let (low, high) = (Vpn(PMD_PAGES - 1), Vpn(PMD_PAGES));
    let (w, d) = (Arc::clone(&world), Arc::clone(&driver));
    let other = loom::thread::spawn(move || {
        w.enter(|mut cx| {
            let range = VpnRange::new(low, high.plus(1)).expect("two pages");
            let mut ticket = d.gate.range_ticket(range, FaultRequest::Read);
            assert_eq!(ticket.next_piece(), Some(low.into()));
            let before = (!mistake).then(|| ticket.snapshot(low.into()));
            let pfn = w.found();
            let slot = ticket.mapped(low.into(), pfn, w.mem.generation(pfn), false);
            let after = before.unwrap_or_else(|| ticket.snapshot(low.into()));
            ticket.put(after, low.into(), vec![slot]);
            assert_eq!(ticket.next_piece(), Some(high.into()));
            let stamp = ticket.snapshot(high.into());
            let slot = ticket.mapped(high.into(), Pfn(2), w.mem.generation(Pfn(2)), false);
            ticket.put(stamp, high.into(), vec![slot]);
            match RangePending::new(ticket).admit(&mut cx) {
                Ok(permit) => drop(permit.establish(|page| u8::from(page.range() != low.into()))),
                Err(_) => thread::yield_now(),
            }
        });
    });
    world.enter(|cx| {
        world.replace_in(cx, low.into(), || {
            let in_window = &mut |_| panic!("an entry inside a window");
            assert!(driver.gate.audit_in(low.into(), in_window));
        });
    });
    other.join().unwrap();
    check_coherent(&world, &driver);
}
