//@ error: E0599
//@ contains: no method named `establish` found for struct `emmu::driver::GateGuard<'p, S, T, C>` in the current scope
#![allow(unused)]
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

fn f(mut g: GateGuard<'_, OrderedStore<u64>, (), Atomic>) { g.establish(1); }
