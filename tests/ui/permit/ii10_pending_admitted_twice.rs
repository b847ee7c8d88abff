//@ error: E0382
//@ contains: use of moved value: `p`
#![allow(unused)]

use emmu::ctx::{CallCx};
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

fn f(mut cx: CallCx<'_>, p: Pending<'_, Spin>) { drop(p.admit(&mut cx)); drop(p.admit(&mut cx)); }
