//! A gfn-to-pfn cache whose slot is replaced in the middle of its refresh.

use crate::acting::Acting;
use emmu::{
    Machine, MachineConfig, Mm, PAGE_SIZE,
    addr::Vpn,
    extmmu::kvm::{Gfn, MemSlot, SlotFlags, Vm, VmConfig},
    mm::{MapFlags, MmapArgs},
};
use std::{
    sync::{Arc, Mutex},
    thread,
};

const BASE: u64 = 1 << 30;
const OTHER: u64 = 1 << 31;

type Act = Box<dyn FnOnce() + Send>;

fn slot(hva: u64) -> MemSlot {
    MemSlot {
        id: 0,
        gfn: Gfn(0),
        pages: 1,
        hva: Vpn::containing(hva),
        flags: SlotFlags::empty(),
    }
}

#[test]
fn a_cache_follows_the_slot_that_the_guest_has() {
    let machine = Machine::new(MachineConfig::default());
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let mm = Mm::new(&machine);
    let act = Arc::new(Mutex::new(None::<Act>));
    let next = Arc::clone(&act);
    let file = Acting::open(&machine, 1, 77, move |_| {
        let act = next.lock().unwrap().take();
        act.into_iter().for_each(|act| act());
    });
    let mut args = MmapArgs::anonymous(PAGE_SIZE).fixed(BASE).file(&file, 0);
    args.flags = MapFlags::FIXED | MapFlags::SHARED;
    mm.mmap(&mut cx, &args).unwrap();
    let private = MmapArgs::anonymous(PAGE_SIZE).fixed(OTHER);
    mm.mmap(&mut cx, &private).unwrap();
    mm.store(&mut cx, OTHER, 5).unwrap();
    let (vm, registration) = Vm::create(&mut cx, &mm, VmConfig::default());
    vm.set_memory(&mut cx, slot(BASE)).unwrap();
    let (m, v) = (Arc::clone(&machine), Arc::clone(&vm));
    let replace = move || {
        let mut thread = m.enter().unwrap();
        let mut cx = thread.cx();
        v.delete_memory(&mut cx, 0).unwrap();
        v.set_memory(&mut cx, slot(OTHER)).unwrap();
    };
    let replaced = || thread::spawn(replace).join().unwrap();
    *act.lock().unwrap() = Some(Box::new(replaced));
    let cache = vm.pfn_cache(0);
    let vcpu = vm.vcpu(&mut cx);
    let mut byte = [0];
    cache.read(&mut cx, 0, &mut byte).unwrap();
    assert_eq!((byte, vcpu.load(&mut cx, 0)), ([5], Ok(5)));
    cache.write(&mut cx, 0, &[9]).unwrap();
    assert_eq!(
        (vcpu.load(&mut cx, 0), mm.load(&mut cx, BASE)),
        (Ok(9), Ok(77))
    );
    // A change of the flags makes it void as well.
    let logs = SlotFlags::LOG_DIRTY_PAGES;
    vm.set_memory(
        &mut cx,
        MemSlot {
            flags: logs,
            ..slot(OTHER)
        },
    )
    .unwrap();
    assert!(!cache.is_valid());
    registration.unregister(&mut cx);
    mm.exit(&mut cx);
}
