//@ error: E0277
//@ contains: cannot be s
#![allow(unused)]

use emmu::ctx::{CallCx};
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

fn f(mut cx: CallCx<'_>) { std::thread::scope(|s| { s.spawn(|| { let c = &mut cx; }); }); }
