//! A driver from zero: a device that reads memory of a process through translations of its own.

use emmu::{Machine, MachineConfig, driver::*, mm::Advice, mm::MmapArgs};
use std::{error::Error, sync::Arc};

struct Device(Gate<OrderedStore<Vpn>, (), Atomic>); // a lock with the translations inside

impl SpinningMmu for Device {
    fn invalidate<'i>(&self, cx: AtomicCallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        self.0.exclude_entries(cx, inv) // the gate drops the range and makes the proof
    }
}

impl Device {
    fn read(&self, cx: &mut CallCx<'_>, mm: &Mm, at: Vpn) -> Result<u8, TranslateError> {
        if let Some(frame) = self.0.lock(cx).lookup(&at) {
            return Ok(frame.read_u8(0)); // a hit
        }
        let miss =
            |permit: Permit<'_, _, _, _>| permit.establish(at).lookup(&at).map(|f| f.read_u8(0));
        let byte = self.0.translate(cx, mm, at, Access::Read, miss)?;
        Ok(byte.expect("established"))
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let machine = Machine::new(MachineConfig::default());
    let mut thread = machine.enter()?;
    let mut cx = thread.cx();
    let mm = Mm::new(&machine);
    let new = |seat: Seat| Arc::new(Device(Gate::new(seat, OrderedStore::default(), ())));
    let (device, _registration) = mm.register(&mut cx, new);
    let addr = mm.mmap(&mut cx, &MmapArgs::anonymous(PAGE_SIZE))?;
    mm.store(&mut cx, addr, 7)?;
    assert_eq!(device.read(&mut cx, &mm, Vpn::containing(addr))?, 7);
    mm.madvise(&mut cx, addr, PAGE_SIZE, Advice::DontNeed)?; // a window: the device misses next
    assert_eq!(device.read(&mut cx, &mm, Vpn::containing(addr))?, 0);
    mm.exit(&mut cx);
    Ok(())
}
