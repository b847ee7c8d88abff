//@ error: E0277
//@ contains: must not be acquired
#![allow(unused)]

use emmu::ctx::{FaultCx};
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

fn f(a: &Mm, mut cx: FaultCx<'_>) { drop(a.lock_shared(&mut cx)); }
