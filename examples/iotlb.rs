//! An IOTLB, written from the documentation alone, and put on trial: a device reads and writes memory by the addresses of
//! a process, through a small direct-mapped buffer of translations.
//!
//!     cargo run --features testkit --example iotlb
//!     cargo test --features testkit --example iotlb

use emmu::ctx::{AtomicCallbackCx, CallCx, CallbackCx};
use emmu::{
    Machine, MachineConfig, Mm, PAGE_SIZE,
    addr::{Vpn, VpnRange},
    ctx::Atomic,
    mm::{Advice, MmapArgs},
    notifier::{
        Access, Ack, ExternalMmu, Gate, Invalidation, RemovedEntries, Retry, Seat, ShadowEntry,
        ShadowStore, Translation, WouldBlock,
    },
    testkit::{Declared, Device, Holds, Refused, conformance},
};
use std::sync::Arc;

/// Entries of the buffer; a page has one place in it.
const ENTRIES: usize = 64;

struct Buffer(Vec<Option<ShadowEntry>>);

impl Buffer {
    fn slot(&mut self, at: Vpn) -> &mut Option<ShadowEntry> {
        &mut self.0[at.0 as usize % ENTRIES]
    }
}

impl ShadowStore for Buffer {
    type Key = Vpn;
    fn insert(&mut self, at: Vpn, entry: ShadowEntry) -> RemovedEntries {
        self.slot(at).replace(entry).into_iter().collect()
    }
    fn get(&self, at: &Vpn) -> Option<&ShadowEntry> {
        let slot = self.0[at.0 as usize % ENTRIES].as_ref();
        slot.filter(|e| e.vpn() == *at)
    }
    fn remove(&mut self, at: &Vpn) -> Option<ShadowEntry> {
        self.slot(*at).take_if(|e| e.vpn() == *at)
    }
    fn remove_range(&mut self, range: VpnRange, gone: &mut RemovedEntries) {
        let slots = self.0.iter_mut();
        gone.extend(slots.filter_map(|slot| slot.take_if(|e| e.range().overlaps(range))));
    }
    fn for_each(&self, visit: &mut dyn FnMut(&ShadowEntry)) {
        self.0.iter().flatten().for_each(visit);
    }
}

/// The IOTLB: its lock spins, so it answers every window at once.
struct Iotlb {
    gate: Gate<Buffer, (), Atomic>,
}

impl Iotlb {
    fn new(seat: Seat) -> Arc<Self> {
        let buffer = Buffer((0..ENTRIES).map(|_| None).collect());
        Arc::new(Self {
            gate: Gate::new(seat, buffer, ()),
        })
    }
    /// Has the translation made, again as long as windows are in the way.
    fn miss(&self, cx: &mut CallCx<'_>, mm: &Mm, at: Vpn, access: Access) -> Result<(), Refused> {
        loop {
            let pending = mm.resolve(cx, self.gate.ticket(at, access))?;
            match pending.admit(cx) {
                Ok(permit) => break drop(permit.establish(at)),
                Err(Retry::Detached) => return Err(Refused::Gone),
                Err(Retry::Busy | Retry::Stale) => std::thread::yield_now(),
            }
        }
        Ok(())
    }
}

impl ExternalMmu for Iotlb {
    fn invalidate_start<'i>(&self, cx: CallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        self.gate.exclude(cx, inv, |(), _, _| ())
    }
    fn try_invalidate_start<'i>(
        &self,
        cx: AtomicCallbackCx<'_>,
        inv: Invalidation<'i>,
    ) -> Result<Ack<'i>, WouldBlock> {
        Ok(self.gate.exclude(cx, inv, |(), _, _| ()))
    }
    fn name(&self) -> &'static str {
        "IOTLB"
    }
    fn translations(&self, visit: &mut dyn FnMut(Translation)) -> bool {
        self.gate.audit(visit)
    }
}

impl Device for Iotlb {
    fn read(&self, cx: &mut CallCx<'_>, mm: &Mm, addr: u64) -> Result<u8, Refused> {
        let at = Vpn::containing(addr);
        loop {
            if let Some(view) = self.gate.lock(cx).lookup(&at) {
                return Ok(view.read_u8((addr % PAGE_SIZE) as usize));
            }
            self.miss(cx, mm, at, Access::Read)?;
        }
    }
    fn write(&self, cx: &mut CallCx<'_>, mm: &Mm, addr: u64, byte: u8) -> Result<(), Refused> {
        let at = Vpn::containing(addr);
        loop {
            if let Some(mut view) = self.gate.lock(cx).lookup_mut(&at) {
                view.write((addr % PAGE_SIZE) as usize, &[byte]);
                return Ok(());
            }
            self.miss(cx, mm, at, Access::Write)?;
        }
    }
    fn declares(&self) -> Declared {
        Declared {
            holds: Holds::Tlb,
            ..Declared::default()
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let machine = Machine::new(MachineConfig::default());
    let mut thread = machine.enter()?;
    let mut cx = thread.cx();
    let mm = Mm::new(&machine);
    let (iotlb, _stays) = mm.register(&mut cx, Iotlb::new);
    let at = mm.mmap(&mut cx, &MmapArgs::anonymous(PAGE_SIZE))?;
    iotlb.write(&mut cx, &mm, at, 42)?;
    let byte = mm.load(&mut cx, at)?;
    println!("the device wrote 42, the process reads {byte}");
    mm.madvise(&mut cx, at, PAGE_SIZE, Advice::DontNeed)?;
    let byte = iotlb.read(&mut cx, &mm, at)?;
    println!("the page was dropped, the device reads {byte}");
    mm.exit(&mut cx);
    println!("\non trial:\n{}", conformance(Iotlb::new));
    Ok(())
}

#[cfg(test)]
mod tests {
    emmu::conformance_tests!(super::Iotlb::new);
}
