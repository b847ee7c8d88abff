//@ error: E0308
//@ contains: mismatched types
//@ contains: expected `&mut Cx<'_, _, Sleepable>`, found `&mut Cx<'_, Idle, Atomic>`
#![allow(unused)]
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

fn f(g: &Spin, mut cx: Cx<'_, rank::Idle, Atomic>, r: VpnRange) { g.wait_idle(&mut cx, r); }
