//@ error: E0505
//@ contains: cannot move out of `g` because it is borrowed
#![allow(unused)]
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

fn f(g: GateGuard<'_, OrderedStore<u64>, (), Atomic>) { let v = g.lookup(&1).unwrap(); drop(g); v.read_u8(0); }
