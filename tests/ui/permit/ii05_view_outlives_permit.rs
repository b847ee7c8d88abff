//@ error: E0505
//@ contains: cannot move out of `p` because it is borrowed
#![allow(unused)]
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

fn f(p: Permit<'_, OrderedStore<u64>, (), Atomic>) { let v = p.frame(); drop(p); v.read_u8(0); }
