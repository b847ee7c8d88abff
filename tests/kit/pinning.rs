//! Devices that keep pages pinned and follow no window, as RDMA without paging and devices behind
//! an IOMMU do, and say so: the kit asks nothing of them that only a device that follows could do.

use emmu::{
    driver::*,
    error::PinError,
    extmmu::{References, pinned::DomainConfig},
    mm::{HeldPages, PinKind},
    testkit::{self, Declared, Device, Holds, Kit, Refused},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

/// Its gate has no entry: what it has is pinned, until the address space ends.
struct Pinning {
    gate: Gate<OrderedStore<Vpn>, (), Atomic>,
    held: Mutex<Option<BTreeMap<Vpn, HeldPages>>>,
    kind: PinKind,
}

fn pinning(kind: PinKind) -> Kit {
    Kit::new(move |seat| {
        Arc::new(Pinning {
            gate: Gate::new(seat, OrderedStore::default(), ()),
            held: Mutex::new(Some(BTreeMap::new())),
            kind,
        })
    })
}

impl SpinningMmu for Pinning {
    fn invalidate<'i>(&self, cx: AtomicCallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        self.gate.exclude_entries(cx, inv)
    }
    fn release(&self, _: CallbackCx<'_>) {
        let held = self.held.lock().unwrap().take();
        drop(held);
    }
    fn translations(&self, visit: &mut dyn FnMut(Translation)) -> bool {
        self.gate.audit(visit)
    }
}

impl Pinning {
    /// Runs `f` on the page of `addr`, which is pinned by then.
    fn with<T>(
        &self,
        cx: &mut CallCx<'_>,
        mm: &Mm,
        addr: u64,
        f: impl FnOnce(&HeldPages, usize) -> T,
    ) -> Result<T, Refused> {
        let (at, offset) = (Vpn::containing(addr), (addr % PAGE_SIZE) as usize);
        let has = |held: &BTreeMap<Vpn, HeldPages>| held.contains_key(&at);
        if !self.held.lock().unwrap().as_ref().is_some_and(has) {
            let pinned = mm.pin(cx, at.addr(), 4096, Access::Write, self.kind);
            let pinned = pinned.map_err(|why| match why {
                PinError::Fault(why) => Refused::Fault(why),
                other => Refused::Other(other.to_string()),
            })?;
            let mut held = self.held.lock().unwrap();
            let held = held.as_mut().ok_or(Refused::Gone)?;
            held.entry(at).or_insert(pinned);
        }
        let held = self.held.lock().unwrap();
        let held = held.as_ref().ok_or(Refused::Gone)?;
        Ok(f(&held[&at], offset))
    }
}

impl Device for Pinning {
    fn read(&self, cx: &mut CallCx<'_>, mm: &Mm, addr: u64) -> Result<u8, Refused> {
        self.with(cx, mm, addr, |held, offset| {
            let mut byte = [0];
            held.read_at(offset, &mut byte);
            byte[0]
        })
    }
    fn write(&self, cx: &mut CallCx<'_>, mm: &Mm, addr: u64, byte: u8) -> Result<(), Refused> {
        self.with(cx, mm, addr, |held, offset| {
            held.write_at(offset, &[byte]);
        })
    }
    fn declares(&self) -> Declared {
        Declared {
            holds: Holds::Nothing,
            references: References::Held,
            coherent: false,
            always_writes: true,
            ..Declared::default()
        }
    }
}

mod for_one_transfer {
    emmu::conformance_tests!(kit = super::pinning(super::PinKind::Short));
}
mod for_any_time {
    emmu::conformance_tests!(kit = super::pinning(super::PinKind::LongTerm));
}

mod until_unmapped {
    emmu::conformance_tests!(kit = super::testkit::pinned(super::DomainConfig::default()));
}
