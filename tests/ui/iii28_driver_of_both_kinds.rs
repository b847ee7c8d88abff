//@ error: E0119
//@ contains: conflicting implementations of trait `emmu::driver::ExternalMmu` for type `D`
#![allow(unused)]
use emmu::driver::*;

struct D(Gate<OrderedStore<u64>, (), Atomic>);
impl SpinningMmu for D { fn invalidate<'i>(&self, cx: AtomicCallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> { self.0.exclude(cx, inv, |_, _, _| ()) } }
impl ExternalMmu for D { fn invalidate_start<'i>(&self, cx: CallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> { self.0.exclude(cx, inv, |_, _, _| ()) } }
