//! What a driver that holds a page, or wants one, may rely on: pages that were given up lazily, and
//! pages that may only be read.

use crate::common::{PAGE, RW, World, at, driver::Driver, machine, objects::swapping};
use emmu::{
    addr::Vpn,
    extmmu::xpmem::{Owner, OwnerConfig, Partition, PartitionId},
    mm::{Advice, Prot},
    notifier::{Access, ShadowStore},
};
use std::sync::Arc;

fn advise(w: &mut World, n: u64, advice: Advice) {
    w.mm.madvise(&mut w.thread.cx(), at(0), n * PAGE, advice)
        .unwrap();
}

/// A device that holds page 0 by reference, to write to.
struct Device(Arc<Driver>);

impl Device {
    fn new(w: &mut World) -> Self {
        let (driver, registration) = w.mm.register(&mut w.thread.cx(), Driver::new);
        drop(registration); // Until the end of the address space.
        Self(driver)
    }
    fn take(&self, w: &mut World) {
        let cx = &mut w.thread.cx();
        loop {
            let ticket = self.0.gate.ticket(Vpn::containing(at(0)), Access::Write);
            let pending = w.mm.resolve(cx, ticket).expect("mapped");
            if let Ok(permit) = pending.admit(cx) {
                return drop(permit.establish_held(at(0)));
            }
        }
    }
    /// Writes to the page if it has it.
    fn write(&self, w: &mut World, byte: u8) -> bool {
        let cx = &mut w.thread.cx();
        let mut gate = self.0.gate.lock(cx);
        let Some(mut view) = gate.lookup_mut(&at(0)) else {
            return false;
        };
        view.write(0, &[byte]);
        gate.store().get(&at(0)).expect("as above").set_dirty();
        true
    }
}

/// The two ways in which what was given up goes.
fn give_up(w: &mut World, by_address: bool) {
    if by_address {
        advise(w, 1, Advice::PageOut);
    } else {
        w.machine.reclaim_all(&mut w.thread.cx());
    }
}

#[test]
fn what_a_device_writes_to_a_page_that_was_given_up_is_not_lost() {
    for by_address in [true, false] {
        let world = || {
            let mut w = swapping(64, 64);
            w.map(0, 1, RW);
            w.put(0, 11);
            let device = Device::new(&mut w);
            advise(&mut w, 1, Advice::Free);
            (w, device)
        };
        // Nobody writes.
        let (mut w, device) = world();
        device.take(&mut w);
        give_up(&mut w, by_address);
        assert!(!device.write(&mut w, 12), "it holds nothing");
        assert_eq!(w.get(0), Ok(0));
        w.end();
        // Written while it is held.
        let (mut w, device) = world();
        device.take(&mut w);
        assert!(device.write(&mut w, 12));
        give_up(&mut w, by_address);
        assert_eq!(w.get(0), Ok(12));
        w.end();
        // Held, taken back, and held again.
        let (mut w, device) = world();
        device.take(&mut w);
        give_up(&mut w, by_address);
        device.take(&mut w);
        assert!(device.write(&mut w, 12));
        give_up(&mut w, by_address);
        assert_eq!(w.get(0), Ok(12));
        w.end();
    }
}

#[test]
fn a_huge_page_that_cannot_be_written_is_refused_to_writers_and_read_by_others() {
    let mut w = World::on(machine(2048));
    w.map(0, 512, RW);
    advise(&mut w, 512, Advice::HugePage);
    w.put(7, 5);
    let mm = Arc::clone(&w.mm);
    let cx = &mut w.thread.cx();
    mm.mprotect(cx, at(0), 512 * PAGE, Prot::READ).unwrap();
    let (owner, seat) = Owner::attach(cx, &mm, OwnerConfig::default());
    let segment = owner.make(World::pages(0, 512), Access::Write);
    let partition = Partition::new(PartitionId(1));
    let importer = owner.import(&partition, segment, 0, 512).unwrap();
    importer.write(cx, 7 * PAGE, &[6]).expect_err("read-only");
    let mut byte = [0];
    importer.read(cx, 7 * PAGE, &mut byte).unwrap();
    assert_eq!(byte, [5]);
    mm.mprotect(cx, at(0), 512 * PAGE, RW).unwrap();
    importer.write(cx, 7 * PAGE, &[6]).unwrap();
    assert_eq!(mm.load(cx, at(7)), Ok(6));
    drop(importer);
    seat.unregister(cx);
    w.end();
}

/// A device that asks for the zero page again and again does not use up its references, nor those
/// of the page's own frame.
#[test]
fn pages_that_are_exported_again_and_again() {
    let mut w = World::new();
    w.map(0, 1, Prot::READ);
    assert_eq!(w.get(0), Ok(0));
    let mut own = None;
    for _ in 0..1 << 14 {
        let cx = &mut w.thread.cx();
        let frame =
            w.mm.with_locked_frame(cx, at(0), Access::Read, |_, locked| {
                locked.export();
                locked.pfn()
            });
        assert_eq!(*own.get_or_insert(frame.unwrap()), frame.unwrap());
    }
    let mem = w.machine.mem();
    let own = own.unwrap();
    assert_eq!(
        (mem.refcount(own), mem.mapcount(own), mem.in_use()),
        (1, 1, 1)
    );
    w.end();
}
