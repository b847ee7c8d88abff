//@ error: E0505
//@ contains: cannot move out of
#![allow(unused)]

use emmu::ctx::{CallCx};
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

fn f(g: Spin, mut cx: CallCx<'_>) { let held = g.lock(&mut cx); drop(g); drop(held); }
