//! A virtual processor whose guest memory is the whole address space.

use super::follower::Follower;
use crate::{
    ctx::CallCx,
    extmmu::{
        Meter,
        kvm::{MemSlot, Vcpu, Vm, VmConfig},
    },
    mm::Mm,
    oracle::Oracle,
};
use std::sync::Arc;

pub(super) struct Guest(Arc<Vm>, Vcpu);

impl Guest {
    pub(super) fn attach(cx: &mut CallCx<'_>, mm: &Arc<Mm>) -> Self {
        let (vm, _stays) = Vm::create(cx, mm, VmConfig::default());
        vm.set_memory(cx, MemSlot::ALL_MEMORY)
            .expect("all of memory fits");
        let vcpu = vm.vcpu(cx);
        Self(vm, vcpu)
    }
}

impl Follower for Guest {
    fn show_to(&self, oracle: &Arc<Oracle>, mm: &Arc<Mm>) {
        oracle.watch(mm, self.0.clone());
    }
    fn meter(&self) -> &Meter {
        self.0.meter()
    }
    fn held(&self, cx: &mut CallCx<'_>) -> usize {
        self.0.entries(cx)
    }
    fn read(&self, cx: &mut CallCx<'_>, addr: u64, out: &mut [u8]) -> bool {
        self.1.read(cx, addr, out).is_ok()
    }
    fn write(&self, cx: &mut CallCx<'_>, addr: u64, bytes: &[u8]) {
        let _refused = self.1.write(cx, addr, bytes);
    }
}
