//@ error: E0277
//@ contains: at rank `emmu::ctx::rank::Window` one must not wait
#![allow(unused)]
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

fn f(g: &Spin, mut w: InvalidationWindow<'_, Sleepable>, r: VpnRange) { g.wait_idle(&mut w.cx(), r); }
