//! The devices that benchmarks measure: a processor of a guest, a context of a GRU, and an
//! attachment of XPmem, each with the first pages of the world as its memory.
#![allow(dead_code)] // Each benchmark uses a part of it.

use crate::world::{World, number};
use emmu::{
    addr::{Vpn, VpnRange},
    extmmu::{
        References,
        gru::{Gru, GruConfig, GruContext, GruSpace},
        kvm::{Gfn, MemSlot, SlotFlags, Vcpu, Vm, VmConfig},
        xpmem::{Attachment, Owner, OwnerConfig, Partition, PartitionId},
    },
    notifier::Access,
};
use std::sync::Arc;

/// A machine whose guest memory is the first pages of the world.
pub(crate) fn guest(w: &mut World<'_>, pages: u64) -> (Arc<Vm>, Vcpu) {
    let (vm, _stays) = Vm::create(&mut w.cx, &w.mm, VmConfig::default());
    let slot = MemSlot {
        id: 0,
        gfn: Gfn(0),
        pages,
        hva: Vpn(number(0)),
        flags: SlotFlags::empty(),
    };
    vm.set_memory(&mut w.cx, slot).expect("no window is open");
    let vcpu = vm.vcpu(&mut w.cx);
    (vm, vcpu)
}

/// A context on a GRU without preloading, so that a miss is one drop-in.
pub(crate) fn context(w: &mut World<'_>) -> GruContext {
    let config = GruConfig {
        preload: 0,
        ..GruConfig::default()
    };
    let (space, _stays) = GruSpace::attach(&mut w.cx, &w.mm, &Gru::several(1, config), None);
    GruContext::new(&space, 0).expect("one GRU")
}

/// An attachment of a partition to the first pages of the world.
pub(crate) fn attachment(w: &mut World<'_>, pages: u64) -> Attachment {
    let config = OwnerConfig {
        references: References::None,
        ..OwnerConfig::default()
    };
    let (owner, _stays) = Owner::attach(&mut w.cx, &w.mm, config);
    let range = VpnRange::new(Vpn(number(0)), Vpn(number(pages))).expect("some");
    let segment = owner.make(range, Access::Write);
    let partition = Partition::new(PartitionId(1));
    let attached = owner.import(&partition, segment, 0, pages);
    attached.expect("all of it")
}
