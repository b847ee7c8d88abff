//! Loom models of leases: taken and ended without a lock, against windows that close their slots,
//! and against slots that change hands.
//!
//! A set of the table has one slot here.

use super::{
    config::{IommuConfig, OnWindow},
    holder::Holder,
    iotlb::ProcessIotlb,
    lease::Part,
    leases::{Given, Leases},
    own_leases::own,
    slots::{SlotId, Slots, one},
};
use crate::{
    addr::{Pfn, Vpn, VpnRange},
    ctx::CallCx,
    notifier::{
        Access, Registration, ShadowStore,
        models::{PAGE, World, run},
    },
    sync::{Ordering::AcqRel, thread},
};
use smallvec::SmallVec;
use std::{ptr::without_provenance_mut, sync::Arc};

/// A page of the same set.
const OTHER: Vpn = Vpn(PAGE.0 + 3);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wrong {
    Nothing,
    /// A lease is taken of a slot that is closed.
    Blind,
    /// The end of a lease notifies no window.
    Unnotified,
    /// The page is not looked at once the lease is counted.
    Unlooked,
}

struct Iommu {
    world: Arc<World>,
    iotlb: Arc<ProcessIotlb>,
    leases: Arc<Leases>,
    _stays: Registration,
}

fn part(page: Vpn) -> Part {
    Part {
        iova: page.addr(),
        page,
        offset: 0,
        len: 8,
    }
}
/// The address of a page in these models.
fn address(page: Vpn) -> *mut u8 {
    without_provenance_mut(usize::try_from(page.0).expect("small"))
}

type Holders<'l> = SmallVec<[Holder<'l>; 4]>;

impl Iommu {
    fn new(on_window: OnWindow) -> Arc<Self> {
        let world = World::new();
        let config = IommuConfig {
            on_window,
            mistake: None,
        };
        let leases = Leases::new(&world.mem, config);
        let (iotlb, stays) = world.register(|seat| Arc::new(ProcessIotlb::new(seat, &leases)));
        Arc::new(Self {
            world,
            iotlb,
            leases,
            _stays: stays,
        })
    }
    fn held(&self, given: Option<Given>) -> Option<Holders<'_>> {
        let given = given?.into_iter();
        Some(
            given
                .map(|lease| Holder::new(&self.leases, lease))
                .collect(),
        )
    }
    /// Brings a page into the IOTLB.
    fn miss(&self, cx: &mut CallCx<'_>, page: Vpn) {
        let world = &self.world;
        let ticket = self.iotlb.gate.ticket(page, Access::Read);
        let pfn = world.found();
        let pending = ticket.fill(
            VpnRange::single(page),
            pfn,
            world.mem.generation(pfn),
            false,
        );
        match pending.admit(cx) {
            Ok(permit) => drop(permit.establish(page)),
            Err(_) => thread::yield_now(),
        }
    }
    /// Takes a lease with the gate locked.
    fn give(&self, cx: &mut CallCx<'_>, page: Vpn) -> Option<Holders<'_>> {
        let gate = self.iotlb.gate.lock(cx);
        let found = gate.store().get(&page)?.translation();
        let found = [(found, address(page))];
        let given = self
            .leases
            .give(&[part(page)], &found, (Access::Read, Access::Read));
        self.held(given.ok()?)
    }
    /// Takes a lease without a lock.
    fn take(&self, page: Vpn) -> Option<Holders<'_>> {
        self.held(self.leases.take(&[part(page)], Access::Read, Access::Read))
    }
    /// Takes a lease of the slot that has the page, once `count` has counted it.
    fn take_wrongly(&self, page: Vpn, count: impl Fn(SlotId) -> bool) -> Option<Holders<'_>> {
        let mut set = Slots::set_of(page);
        let id = set.find(|id| self.leases.slots.at(*id).page() == page && count(*id))?;
        let access = (Access::Read, true);
        self.held(self.leases.begin(&[part(page)], &[id], access))
    }
    fn take_blindly(&self, page: Vpn) -> Option<Holders<'_>> {
        self.take_wrongly(page, |id| {
            let slot = self.leases.slots.at(id);
            let found = !slot.word().is_free();
            if found {
                slot.word.fetch_add(one(true), AcqRel);
            }
            found
        })
    }
    fn take_unlooked(&self, page: Vpn) -> Option<Holders<'_>> {
        self.take_wrongly(page, |id| self.leases.slots.at(id).count_lease(false, true))
    }
    /// Ends a lease, and notifies no window.
    fn end_unnotified(&self, holder: Holder<'_>) {
        let lease = holder.lease();
        own(|own| own.remove(lease));
        let counted = one(lease.awaited.get());
        let slot = self.leases.slots.at(lease.slot);
        slot.word.fetch_sub(counted, AcqRel);
        std::mem::forget(holder);
    }
    /// The frame that a lease leads to.
    fn frame_of(&self, holders: &Holders<'_>) -> Pfn {
        self.leases.slots.at(holders[0].lease().slot).pfn()
    }
    /// A page that has a slot, and no lease.
    fn fill(&self) {
        self.world.enter(|mut cx| {
            self.miss(&mut cx, PAGE);
            drop(self.give(&mut cx, PAGE).expect("it was brought in"));
        });
    }
}

/// A device has a lease while a window opens that waits for leases: what it leads to is the page.
fn lease_against_window(wrong: Wrong) {
    let iommu = Iommu::new(OnWindow::Wait);
    iommu.fill();
    let device = Arc::clone(&iommu);
    let other = loom::thread::spawn(move || {
        let world = &device.world;
        let holders = match wrong {
            Wrong::Blind => device.take_blindly(PAGE),
            _ => device.take(PAGE),
        };
        let Some(holders) = holders else {
            return;
        };
        let frame = device.frame_of(&holders);
        assert_eq!(world.found(), frame, "a slice of a page that went");
        thread::yield_now();
        assert_eq!(world.found(), frame, "a slice of a page that went");
        if wrong == Wrong::Unnotified {
            let ended = holders.into_iter();
            ended.for_each(|holder| device.end_unnotified(holder));
        }
    });
    iommu.world.enter(|cx| {
        iommu.world.replace(cx, || ());
    });
    other.join().unwrap();
    assert_eq!(iommu.leases.len(), 0);
}

/// A device brings a page in and takes a lease of it while a window opens.
fn fill_against_window() {
    let iommu = Iommu::new(OnWindow::Wait);
    let device = Arc::clone(&iommu);
    let other = loom::thread::spawn(move || {
        device.world.enter(|mut cx| {
            device.miss(&mut cx, PAGE);
            if let Some(holders) = device.give(&mut cx, PAGE) {
                let frame = device.frame_of(&holders);
                assert_eq!(device.world.found(), frame, "a slice of a page that went");
            }
        });
    });
    iommu.world.enter(|cx| iommu.world.replace(cx, || ()));
    if let Some(holders) = iommu.take(PAGE) {
        assert_eq!(iommu.frame_of(&holders), iommu.world.found(), "stale slot");
    }
    other.join().unwrap();
    assert_eq!(iommu.leases.len(), 0);
}

/// A slot gets another page while a device takes a lease of the page that it had.
fn lease_against_reuse(wrong: Wrong) {
    let iommu = Iommu::new(OnWindow::Wait);
    iommu.fill();
    iommu.world.enter(|mut cx| iommu.miss(&mut cx, OTHER));
    let device = Arc::clone(&iommu);
    let other = loom::thread::spawn(move || {
        let holders = match wrong {
            Wrong::Unlooked => device.take_unlooked(PAGE),
            _ => device.take(PAGE),
        };
        if let Some(holders) = holders {
            let leads_to = holders[0].lease().address;
            assert_eq!(leads_to, address(PAGE), "a slice of another page");
        }
    });
    let held = iommu
        .world
        .enter(|mut cx| iommu.give(&mut cx, OTHER).is_some());
    assert!(held, "there is a slot in any case");
    other.join().unwrap();
    assert_eq!(iommu.leases.len(), 0);
}

/// A slice outlives its iterator, and a window revokes it while it is dropped: its frame is given
/// up once, by either.
fn end_against_revocation(wrong: Wrong) {
    let iommu = Iommu::new(OnWindow::Revoke);
    let first = iommu.world.mem.alloc().unwrap().into_raw();
    assert_eq!(first, iommu.world.found());
    iommu.fill();
    let device = Arc::clone(&iommu);
    let other = loom::thread::spawn(move || {
        let holders = match device.take(PAGE) {
            Some(holders) => holders,
            None => return,
        };
        let slice = holders[0].clone();
        holders.into_iter().for_each(Holder::end_iteration);
        match wrong {
            Wrong::Unnotified => device.end_unnotified(slice),
            _ => drop(slice),
        }
    });
    iommu.world.enter(|cx| iommu.world.replace(cx, || ()));
    other.join().unwrap();
    let left = iommu.leases.table.lock().all().count();
    assert_eq!(left, 0, "a slot is left");
    drop(iommu.world.mem.adopt(first));
    assert_eq!(iommu.world.mem.in_use(), 0, "a frame is left");
}

#[test]
fn lease() {
    run::holds("lease", || lease_against_window(Wrong::Nothing));
}
#[test]
fn lease_of_a_closed_slot() {
    run::fails(
        "lease_of_a_closed_slot",
        "a slice of a page that went",
        || lease_against_window(Wrong::Blind),
    );
}
#[test]
fn lease_that_ends_silently() {
    run::fails("lease_that_ends_silently", "deadlock", || {
        lease_against_window(Wrong::Unnotified)
    });
}
#[test]
fn lease_fill() {
    run::holds("lease_fill", fill_against_window);
}
#[test]
fn lease_reuse() {
    run::holds("lease_reuse", || lease_against_reuse(Wrong::Nothing));
}
#[test]
fn lease_of_a_page_not_looked_at() {
    run::fails(
        "lease_of_a_page_not_looked_at",
        "a slice of another page",
        || lease_against_reuse(Wrong::Unlooked),
    );
}
#[test]
fn lease_revoked() {
    run::holds("lease_revoked", || end_against_revocation(Wrong::Nothing));
}
#[test]
fn lease_revoked_and_left() {
    run::fails("lease_revoked_and_left", "a slot is left", || {
        end_against_revocation(Wrong::Unnotified)
    });
}
