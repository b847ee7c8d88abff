//@ error: E0499
//@ contains: cannot borrow `cx` as mutable more than once at a time
//@ contains: first borrow later used here
#![allow(unused)]

use emmu::ctx::{CallCx};
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

fn f(g: &Spin, mut cx: CallCx<'_>) { let mut g = g.lock(&mut cx); cx.sleep(Duration::ZERO); g.state(); }
