//@ error: E0277
//@ contains: must not be acquired
#![allow(unused)]
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

fn f(mm: &Mm, mut g: GateGuard<'_, OrderedStore<u64>, u64, Sleepable>, t: Ticket<'_, Sleep>) { drop(mm.resolve(&mut g.cx(), t)); }
