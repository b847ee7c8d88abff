//@ error: E0308
//@ contains: mismatched types
//@ contains: expected `Cx<'_, Callback, Sleepable>`, found `Cx<'_, Callback, Atomic>`
#![allow(unused)]
use emmu::driver::*;

struct D(Gate<OrderedStore<u64>, (), Sleepable>); impl SpinningMmu for D { fn invalidate<'i>(&self, cx: AtomicCallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> { self.0.exclude(cx, inv, |_, _, _| ()) } }
