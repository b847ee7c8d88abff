//@ error: E0507
//@ contains: cannot move out of a shared reference
#![allow(unused)]
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

fn f(g: GateGuard<'_, OrderedStore<u64>, (), Atomic>) -> OrderedStore<u64> { *g.store() }
