//! A confidential guest: it works in pages that the process which runs it does not see, and
//! converts one when it wants to hand something over.
//!
//! ```text
//! cargo run --example confidential_guest
//! ```

use emmu::{
    Machine, MachineConfig, Mm,
    addr::Vpn,
    ctx::CallCx,
    extmmu::kvm::{
        C_BIT, Exit, Gfn, GuestMemfdFlags, MemSlot, MemoryAttributes, PageKind, SlotFlags, Vm,
        VmConfig, VmType,
    },
    file::{File, FileMode},
    mm::MmapArgs,
    notifier::ExternalMmu,
    oracle::Oracle,
};
use std::{error::Error, sync::Arc};

const RAM: u64 = 0x10_0000_0000;
const PAGES: u64 = 64;
const PAGE: u64 = emmu::PAGE_SIZE;
/// The guest-physical address of a buffer for the process.
const BUFFER: u64 = 0x3000;

fn main() -> Result<(), Box<dyn Error>> {
    let machine = Machine::new(MachineConfig::default());
    let mut thread = machine.enter()?;
    let mut cx = thread.cx();

    // A process, a machine, and for each guest frame two pages: one of the process, one of the
    // guest file.
    let host = Mm::new(&machine);
    host.mmap(&mut cx, &MmapArgs::anonymous(PAGES * PAGE).fixed(RAM))?;
    let config = VmConfig {
        vm_type: VmType::Snp,
        ..VmConfig::default()
    };
    let (vm, registration) = Vm::create(&mut cx, &host, config);
    let memfd = vm.create_guest_memfd(PAGES * PAGE, GuestMemfdFlags::empty())?;
    let ram = MemSlot {
        id: 0,
        gfn: Gfn(0),
        pages: PAGES,
        hva: Vpn::containing(RAM),
        flags: SlotFlags::GUEST_MEMFD,
    };
    vm.set_guest_memory(&mut cx, ram, &memfd, 0)?;
    let oracle = Oracle::new(&machine);
    oracle.watch(&host, Arc::clone(&vm) as Arc<dyn ExternalMmu>);

    // All of memory begins as private. The guest says so in its addresses, by the C-bit.
    vm.set_memory_attributes(&mut cx, 0, PAGES * PAGE, MemoryAttributes::PRIVATE)?;
    let vcpu = vm.vcpu(&mut cx);
    vcpu.write(&mut cx, C_BIT | BUFFER, b"a secret")?;
    println!(
        "the guest wrote to a private page; the process reads {:?}",
        text(&host, &mut cx)?
    );

    // The guest wants to hand a page over. It touches it as shared, and leaves: the process
    // converts the page, and the guest goes on.
    let exit = vcpu.write(&mut cx, BUFFER, b"hello!").unwrap_err();
    println!("{exit}");
    let Exit::MemoryFault {
        gpa, size, kind, ..
    } = exit
    else {
        return Err(exit.into());
    };
    let attributes = match kind {
        PageKind::Shared => MemoryAttributes::empty(),
        PageKind::Private => MemoryAttributes::PRIVATE,
    };
    vm.set_memory_attributes(&mut cx, gpa, size, attributes)?;
    vcpu.write(&mut cx, BUFFER, b"hello!")?;
    println!("converted; the process reads {:?}", text(&host, &mut cx)?);
    println!(
        "private: {}",
        vcpu.load(&mut cx, C_BIT | BUFFER).unwrap_err()
    );

    // The private page is still in the file. The process cannot read it there, and gives it back.
    let file = File::open(memfd, FileMode::ReadWrite);
    let refused = file
        .read_at(cx.reborrow(), BUFFER, &mut [0; 8])
        .unwrap_err();
    println!("read the file: {refused}");
    let pages = machine.mem().in_use();
    file.punch_hole(cx.reborrow(), BUFFER, PAGE)?;
    println!("a hole: {} page less", pages - machine.mem().in_use());

    // The way back: a private page that reads zero.
    vm.set_memory_attributes(&mut cx, BUFFER, PAGE, MemoryAttributes::PRIVATE)?;
    println!(
        "private again: the guest reads {}",
        vcpu.load(&mut cx, C_BIT | BUFFER)?
    );
    assert_eq!(vm.audit_guest_memory(), []);

    // The file goes, and with it all that the guest had.
    drop(file);
    println!("no file: {}", vcpu.load(&mut cx, C_BIT).unwrap_err());
    host.unregister(&mut cx, registration);
    host.exit(&mut cx);
    oracle.audit_end(&host);
    oracle.assert_silent();
    println!("the oracle is silent");
    Ok(())
}

fn text(mm: &Mm, cx: &mut CallCx<'_>) -> Result<String, emmu::FaultError> {
    let mut bytes = [0; 6];
    mm.read_bytes(cx, RAM + BUFFER, &mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
