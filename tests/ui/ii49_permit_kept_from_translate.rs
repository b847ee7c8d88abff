//@ error: lifetime
//@ contains: lifetime may not live long enough
#![allow(unused)]
use emmu::driver::*;
type Spin = Gate<OrderedStore<u64>, (), Atomic>;

fn f(gate: &Spin, cx: &mut CallCx<'_>, mm: &Mm) { let kept = gate.translate(cx, mm, Vpn(0), Access::Read, |permit| permit); }
