//! A guest in the memory of a process. The guest writes, the host forks and drops pages meanwhile,
//! and the guest never reads a page that the process has lost.
//!
//! ```text
//! cargo run --example kvm_guest
//! ```

use emmu::{
    Machine, MachineConfig, Mm,
    addr::Vpn,
    extmmu::kvm::{Gfn, MemSlot, SlotFlags, Vm, VmConfig},
    mm::{Advice, MmapArgs},
    oracle::Oracle,
};
use std::{error::Error, sync::Arc};

const RAM: u64 = 0x10_0000_0000;
const PAGES: u64 = 1024;
const PAGE: u64 = emmu::PAGE_SIZE;

fn main() -> Result<(), Box<dyn Error>> {
    let machine = Machine::new(MachineConfig::default());
    let mut thread = machine.enter()?;
    let mut cx = thread.cx();

    // A process maps 4 MiB, and a guest gets them as its memory.
    let host = Mm::new(&machine);
    host.mmap(&mut cx, &MmapArgs::anonymous(PAGES * PAGE).fixed(RAM))?;
    let (vm, registration) = Vm::create(&mut cx, &host, VmConfig::default());
    let ram = MemSlot {
        id: 0,
        gfn: Gfn(0),
        pages: PAGES,
        hva: Vpn::containing(RAM),
        flags: SlotFlags::LOG_DIRTY_PAGES,
    };
    vm.set_memory(&mut cx, ram)?;
    let vcpu = vm.vcpu(&mut cx);
    let oracle = Oracle::new(&machine);
    oracle.watch(
        &host,
        Arc::clone(&vm) as Arc<dyn emmu::notifier::ExternalMmu>,
    );

    vcpu.write(&mut cx, 0x1000, b"written by the guest")?;
    println!("guest wrote; the process reads {:?}", text(&host, &mut cx)?);

    // The process forks: every page of the guest becomes read-only, and the next store copies.
    let child = host.fork(&mut cx)?;
    println!("fork: {} shadow entries are left", vm.entries(&mut cx));
    vcpu.write(&mut cx, 0x1000, b"WRITTEN")?;
    println!("child still has {:?}", text(&child, &mut cx)?);
    println!("the guest's page is {:?}", text(&host, &mut cx)?);
    child.exit(&mut cx);

    // Live migration: the log has the pages that were written since the last read of the log.
    println!("dirty log: {:?}", vm.dirty_log(&mut cx, 0)?);
    vcpu.store(&mut cx, 5 * PAGE, 1)?;
    println!("dirty log: {:?}", vm.dirty_log(&mut cx, 0)?);

    // A balloon: the guest gives the page up, the host drops it, and the next load reads zeros.
    host.madvise(&mut cx, RAM, 2 * PAGE, Advice::DontNeed)?;
    println!(
        "after the balloon the guest reads {}",
        vcpu.load(&mut cx, 0x1000)?
    );

    // An address beyond memory belongs to a device: the access leaves the guest.
    println!(
        "beyond memory: {}",
        vcpu.load(&mut cx, PAGES * PAGE).unwrap_err()
    );

    println!("\n{:#?}", vm.bill());
    host.unregister(&mut cx, registration);
    host.exit(&mut cx);
    oracle.audit_end(&host);
    oracle.assert_silent();
    println!("the oracle is silent");
    Ok(())
}

fn text(mm: &Mm, cx: &mut emmu::ctx::CallCx<'_>) -> Result<String, emmu::FaultError> {
    let mut bytes = [0; 20];
    mm.read_bytes(cx, RAM + 0x1000, &mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
