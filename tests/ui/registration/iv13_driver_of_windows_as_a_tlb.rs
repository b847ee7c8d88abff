//@ error: E0277
//@ contains: the trait bound `Device: emmu::driver::SecondaryTlb` is not satisfied
#![allow(unused)]
use emmu::driver::*;
use std::sync::Arc;

struct Device(Gate<OrderedStore<u64>, (), Atomic>);
impl SpinningMmu for Device {
    fn invalidate<'i>(&self, cx: AtomicCallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        self.0.exclude(cx, inv, |(), _, _| ())
    }
}

fn f(mm: &Mm, cx: &mut CallCx<'_>, device: Arc<Device>) {
    let _registered = mm.register_tlb(cx, |_seat| device);
}
