//@ error: E0499
//@ contains: cannot borrow `cx` as mutable more than once at a time
//@ contains: first borrow later used here
#![allow(unused)]

use emmu::ctx::{CallCx};
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

fn f(mut cx: CallCx<'_>) { let p = cx.pin(); cx.sleep(Duration::ZERO); drop(p); }
