//@ error: E0594
//@ contains: in a `&` reference
#![allow(unused)]
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

fn f(mut g: GateGuard<'_, OrderedStore<u64>, (), Atomic>, other: OrderedStore<u64>) { *g.parts().0 = other; }
