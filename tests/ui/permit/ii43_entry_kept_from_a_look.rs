//@ error: E0515
//@ contains: returns a value referencing data owned
#![allow(unused)]
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

fn f<'p>(g: GateGuard<'p, OrderedStore<u64>, (), Atomic>) -> &'p ShadowEntry { g.store().get(&0).unwrap() }
