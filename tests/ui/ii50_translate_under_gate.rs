//@ error: E0499
//@ contains: cannot borrow `*cx` as mutable more than once at a time
#![allow(unused)]
use emmu::driver::*;
type Spin = Gate<OrderedStore<u64>, (), Atomic>;

fn f(gate: &Spin, cx: &mut CallCx<'_>, mm: &Mm) { let held = gate.lock(cx); gate.translate(cx, mm, Vpn(0), Access::Read, |permit| drop(permit.establish(0))); drop(held); }
