//@ error: E0061
//@ contains: this method takes 2 arguments but 1 argument was supplied
#![allow(unused)]

use emmu::ctx::{CallCx};
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

fn f(mm: &Mm, mut cx: CallCx<'_>) { mm.resolve(&mut cx); }
