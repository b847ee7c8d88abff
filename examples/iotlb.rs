//! An IOTLB, put on trial: a device that uses the memory of a process through a small direct-mapped
//! buffer of translations. `cargo run --features testkit --example iotlb`; `cargo test` as well.

use emmu::driver::*;
use emmu::testkit::{Declared, Device, Holds, Refused, conformance};
use std::sync::Arc;

/// A buffer of 64 entries, in which a page has one place.
struct Buffer([Option<ShadowEntry>; 64]);

fn place(at: Vpn) -> usize {
    at.0 as usize % 64
}

impl ShadowStore for Buffer {
    type Key = Vpn;
    fn insert(&mut self, at: Vpn, entry: ShadowEntry) -> RemovedEntries {
        self.0[place(at)].replace(entry).into_iter().collect()
    }
    fn get(&self, at: &Vpn) -> Option<&ShadowEntry> {
        self.0[place(*at)].as_ref().filter(|e| e.vpn() == *at)
    }
    fn remove(&mut self, at: &Vpn) -> Option<ShadowEntry> {
        self.0[place(*at)].take_if(|e| e.vpn() == *at)
    }
    fn remove_range(&mut self, range: VpnRange, gone: &mut RemovedEntries) {
        let slots = self.0.iter_mut();
        gone.extend(slots.filter_map(|slot| slot.take_if(|e| e.range().overlaps(range))));
    }
    fn for_each(&self, visit: &mut dyn FnMut(&ShadowEntry)) {
        self.0.iter().flatten().for_each(visit);
    }
}

/// The IOTLB. Its gate spins, so one callback answers every window.
struct Iotlb(Gate<Buffer, (), Atomic>);

impl Iotlb {
    fn new(seat: Seat) -> Arc<Self> {
        Arc::new(Self(Gate::new(seat, Buffer([const { None }; 64]), ())))
    }
}

impl SpinningMmu for Iotlb {
    fn invalidate<'i>(&self, cx: AtomicCallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        self.0.exclude_entries(cx, inv)
    }
    fn translations(&self, visit: &mut dyn FnMut(Translation)) -> bool {
        self.0.audit(visit)
    }
}

impl Device for Iotlb {
    fn read(&self, cx: &mut CallCx<'_>, mm: &Mm, addr: u64) -> Result<u8, Refused> {
        let (at, offset) = (Vpn::containing(addr), (addr % PAGE_SIZE) as usize);
        if let Some(frame) = self.0.lock(cx).lookup(&at) {
            return Ok(frame.read_u8(offset));
        }
        Ok(self.0.translate(cx, mm, at, Access::Read, |permit| {
            let byte = permit.frame().read_u8(offset);
            drop(permit.establish(at));
            byte
        })?)
    }
    fn write(&self, cx: &mut CallCx<'_>, mm: &Mm, addr: u64, byte: u8) -> Result<(), Refused> {
        let (at, offset) = (Vpn::containing(addr), (addr % PAGE_SIZE) as usize);
        if let Some(mut frame) = self.0.lock(cx).lookup_mut(&at) {
            frame.write(offset, &[byte]);
            return Ok(());
        }
        Ok(self.0.translate(cx, mm, at, Access::Write, |permit| {
            let mut gate = permit.establish(at);
            let frame = gate.lookup_mut(&at);
            frame.expect("established").write(offset, &[byte]);
        })?)
    }
    fn declares(&self) -> Declared {
        Declared {
            holds: Holds::Tlb,
            ..Declared::default()
        }
    }
}

fn main() {
    println!("{}", conformance(Iotlb::new));
}

emmu::conformance_tests!(Iotlb::new);
