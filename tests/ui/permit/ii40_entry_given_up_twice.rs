//@ error: E0624
//@ contains: method `discard` is private
#![allow(unused)]
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

fn f(mut g: GateGuard<'_, OrderedStore<u64>, (), Atomic>, gone: RemovedEntries) { g.discard(gone); }
