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
        C_BIT, Exit, Gfn, GuestMemfd, GuestMemfdFlags, MemSlot, MemoryAttributes, PageKind,
        SlotFlags, Vcpu, Vm, VmConfig, VmType,
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

type Done<T = ()> = Result<T, Box<dyn Error>>;

fn main() -> Done {
    let machine = Machine::new(MachineConfig::default());
    let mut thread = machine.enter()?;
    let mut cx = thread.cx();
    let host = Mm::new(&machine);
    host.mmap(&mut cx, &MmapArgs::anonymous(PAGES * PAGE).fixed(RAM))?;
    let config = VmConfig {
        vm_type: VmType::Snp,
        ..VmConfig::default()
    };
    let (vm, registration) = Vm::create(&mut cx, &host, config);
    let oracle = Oracle::new(&machine);
    oracle.watch(&host, Arc::clone(&vm) as Arc<dyn ExternalMmu>);
    let memfd = private_memory(&mut cx, &vm)?;
    let vcpu = vm.vcpu(&mut cx);
    hand_over(&mut cx, &host, &vcpu)?;
    give_back(&mut cx, &host, &vcpu, memfd)?;
    assert_eq!(vm.audit_guest_memory(), []);
    host.unregister(&mut cx, registration);
    host.exit(&mut cx);
    oracle.audit_end(&host);
    oracle.assert_silent();
    println!("the oracle is silent");
    Ok(())
}

/// For each guest frame there are two pages: one of the process, and one of the guest file. All
/// begin as private.
fn private_memory(cx: &mut CallCx<'_>, vm: &Arc<Vm>) -> Done<Arc<GuestMemfd>> {
    let memfd = vm.create_guest_memfd(PAGES * PAGE, GuestMemfdFlags::empty())?;
    let ram = MemSlot {
        id: 0,
        gfn: Gfn(0),
        pages: PAGES,
        hva: Vpn::containing(RAM),
        flags: SlotFlags::GUEST_MEMFD,
    };
    vm.set_guest_memory(cx, ram, &memfd, 0)?;
    vm.set_memory_attributes(cx, 0, PAGES * PAGE, MemoryAttributes::PRIVATE)?;
    Ok(memfd)
}

fn hand_over(cx: &mut CallCx<'_>, host: &Mm, vcpu: &Vcpu) -> Done {
    // The guest says that it means the private page, by the C-bit of the address.
    vcpu.write(cx, C_BIT | BUFFER, b"a secret")?;
    println!("a private page; the process reads {:?}", text(host, cx)?);

    // It touches the page as a shared one, and leaves: the process converts the page.
    let exit = vcpu.write(cx, BUFFER, b"hello!").unwrap_err();
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
    vcpu.vm().set_memory_attributes(cx, gpa, size, attributes)?;
    vcpu.write(cx, BUFFER, b"hello!")?;
    println!("converted; the process reads {:?}", text(host, cx)?);
    println!("{}", vcpu.load(cx, C_BIT | BUFFER).unwrap_err());
    Ok(())
}

fn give_back(cx: &mut CallCx<'_>, host: &Mm, vcpu: &Vcpu, memfd: Arc<GuestMemfd>) -> Done {
    // The private page is still in the file. The process cannot read it there, but gives it back.
    let file = File::open(memfd, FileMode::ReadWrite);
    let refused = file.read_at(cx.reborrow(), BUFFER, &mut [0; 8]);
    println!("read the file: {}", refused.unwrap_err());
    let pages = host.machine().mem().in_use();
    file.punch_hole(cx.reborrow(), BUFFER, PAGE)?;
    println!("a hole: {} less", pages - host.machine().mem().in_use());
    let private = MemoryAttributes::PRIVATE;
    vcpu.vm().set_memory_attributes(cx, BUFFER, PAGE, private)?;
    println!("private again: {}", vcpu.load(cx, C_BIT | BUFFER)?);
    // The file goes, and with it all that the guest had.
    drop(file);
    println!("no file: {}", vcpu.load(cx, C_BIT).unwrap_err());
    Ok(())
}

fn text(mm: &Mm, cx: &mut CallCx<'_>) -> Done<String> {
    let mut bytes = [0; 6];
    mm.read_bytes(cx, RAM + BUFFER, &mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
