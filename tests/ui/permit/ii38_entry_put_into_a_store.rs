//@ error: E0596
//@ contains: as mutable
#![allow(unused)]
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

fn f(mut g: GateGuard<'_, OrderedStore<u64>, (), Atomic>, e: ShadowEntry) { g.store().insert(0, e); }
