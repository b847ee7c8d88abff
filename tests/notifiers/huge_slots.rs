//! An operation that changes one entry of a huge page leaves small entries: a driver that asks for
//! the huge page gets the one page. A huge page of a pool has no small entries.

use crate::common::{BASE, PAGE, at, numbered::page};
use emmu::{
    HugePoolConfig, HugeSize, Machine, MachineConfig, Mm,
    addr::VpnRange,
    ctx::{Atomic, CallCx, CallbackCx},
    mm::{Advice, MapFlags, MmapArgs, PteSlot},
    notifier::{
        Access, Ack, Cached, Event, ExternalMmu, Gate, Invalidation, OrderedStore, Seat,
        Translation,
    },
    oracle::Oracle,
};
use std::sync::{Arc, Mutex};

struct Driver {
    gate: Gate<OrderedStore<u64>, (), Atomic>,
    /// A translation in a TLB that is never flushed.
    kept: Mutex<Option<Translation>>,
}

impl ExternalMmu for Driver {
    fn invalidate_start<'i>(&self, cx: CallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        self.gate.exclude_entries(cx, inv)
    }
    fn translations(&self, visit: &mut dyn FnMut(Translation)) -> bool {
        self.kept.lock().unwrap().iter().for_each(|t| visit(*t));
        self.gate.audit(visit)
    }
    fn translations_in(&self, range: VpnRange, visit: &mut dyn FnMut(Translation)) -> bool {
        let kept = self.kept.lock().unwrap();
        let kept = kept.iter().filter(|t| t.range().overlaps(range));
        kept.for_each(|t| visit(*t));
        self.gate.audit_in(range, visit)
    }
}

/// A huge page, a driver and an oracle.
fn world(f: impl FnOnce(&mut CallCx<'_>, &Mm, &Driver, &Oracle)) {
    let machine = Machine::new(MachineConfig::default());
    let mut thread = machine.enter().unwrap();
    let cx = &mut thread.cx();
    let mm = Mm::new(&machine);
    let oracle = Oracle::new(&machine);
    mm.mmap(cx, &MmapArgs::anonymous(512 * PAGE).fixed(BASE))
        .unwrap();
    mm.madvise(cx, BASE, 512 * PAGE, Advice::HugePage).unwrap();
    mm.store(cx, at(5), 1).unwrap();
    let (driver, _stays) = mm.register(cx, |seat: Seat| {
        Arc::new(Driver {
            gate: Gate::new(seat, OrderedStore::default(), ()),
            kept: Mutex::default(),
        })
    });
    oracle.watch(&mm, Arc::clone(&driver) as Arc<dyn ExternalMmu>);
    f(cx, &mm, &driver, &oracle);
    mm.exit(cx);
    assert_eq!(machine.mem().in_use(), 0);
}

/// Asks for the huge page around page `n`, pinned, under key 7.
fn translate(cx: &mut CallCx<'_>, mm: &Mm, d: &Driver, n: u64, access: Access) -> Cached {
    let ticket = d.gate.ticket(page(n), access).allow_huge();
    let permit = mm.resolve(cx, ticket).unwrap().admit(cx).unwrap();
    permit.establish_held(7).cached(&7).unwrap()
}

fn in_page_5(cx: &mut CallCx<'_>, mm: &Mm, event: Event, f: impl FnOnce(PteSlot<'_>)) {
    let mut g = mm.lock_shared(cx);
    let range = VpnRange::single(page(5));
    g.lease().with_window(range, event, |window| {
        window.lock_ptes(page(5), |txn| f(txn.slot(page(5)).unwrap()));
    });
}

#[test]
fn no_driver_writes_a_part_of_a_huge_page_that_was_protected() {
    world(|cx, mm, d, oracle| {
        in_page_5(cx, mm, Event::ProtectionPage, |slot| {
            assert!(slot.write_protect());
        });
        let cached = translate(cx, mm, d, 9, Access::Write);
        assert!(d.gate.follow_mut(&cached, page(9)).is_some());
        assert!(d.gate.follow_mut(&cached, page(5)).is_none());
        oracle.audit();
        oracle.assert_silent();
        // The page is its owner's still.
        mm.store(cx, at(5), 2).unwrap();
        assert_eq!(mm.load(cx, at(5)), Ok(2));
    });
}

#[test]
fn no_driver_reaches_a_part_of_a_huge_page_that_was_cleared() {
    world(|cx, mm, d, oracle| {
        in_page_5(cx, mm, Event::Clear, |slot| drop(slot.clear()));
        // The first entry of the leaf would stand for the huge page.
        for n in [0, 9] {
            let cached = translate(cx, mm, d, n, Access::Write);
            assert_eq!(cached.range(), VpnRange::single(page(n)));
        }
        assert_eq!(mm.load(cx, at(5)), Ok(0));
        oracle.assert_silent();
    });
}

/// A pinned entry of page 5 gives way to one of the huge page, which holds that frame too.
#[test]
fn a_reference_on_the_huge_page_is_one_on_each_part() {
    world(|cx, mm, d, oracle| {
        let ticket = d.gate.ticket(page(5), Access::Read);
        let permit = mm.resolve(cx, ticket).unwrap().admit(cx).unwrap();
        drop(permit.establish_held(7));
        assert_eq!(translate(cx, mm, d, 5, Access::Read).range().pages(), 512);
        oracle.assert_silent();
    });
}

#[test]
fn a_reference_on_one_part_is_none_on_the_huge_page() {
    world(|cx, mm, d, oracle| {
        let huge = translate(cx, mm, d, 5, Access::Read);
        *d.kept.lock().unwrap() = Some(huge.translation());
        let ticket = d.gate.ticket(page(0), Access::Read);
        let permit = mm.resolve(cx, ticket).unwrap().admit(cx).unwrap();
        drop(permit.establish_held(7));
        assert_eq!(oracle.take().len(), 1, "511 frames have no reference");
        *d.kept.lock().unwrap() = None;
    });
}

/// A huge page of a pool is never split: a window gives out none of its entries.
#[test]
fn a_huge_page_of_a_pool_has_no_slots() {
    for shared in [false, true] {
        let machine = Machine::new(MachineConfig {
            huge_pages: HugePoolConfig {
                pages: 2,
                overcommit: 0,
            },
            ..MachineConfig::default()
        });
        let mut thread = machine.enter().unwrap();
        let cx = &mut thread.cx();
        let mm = Mm::new(&machine);
        let huge = MmapArgs::anonymous(512 * PAGE).fixed(BASE);
        let huge = huge.flags(MapFlags::HUGETLB);
        let huge = if shared { huge.shared() } else { huge };
        mm.mmap(cx, &huge).unwrap();
        mm.store(cx, at(7), 1).unwrap();
        let (mut seen, range) = (0, VpnRange::new(page(0), page(512)).unwrap());
        let mut g = mm.lock_shared(cx);
        g.lease().with_window(range, Event::Clear, |window| {
            window.for_each_leaf(|txn| {
                txn.for_each(|slot| {
                    seen += 1;
                    drop(slot.clear());
                });
                assert!(txn.slot(page(0)).is_none() && txn.slot(page(5)).is_none());
            });
        });
        drop(g);
        assert_eq!(seen, 0);
        assert_eq!(
            (mm.load(cx, at(7)), mm.store(cx, at(5), 1)),
            (Ok(1), Ok(()))
        );
        mm.exit(cx);
        assert_eq!(machine.mem().huge_pool(HugeSize::Mib2).free, 2);
    }
}
