//@ error: E0382
//@ contains: use of moved value: `inv`
#![allow(unused)]

use emmu::ctx::{CallbackCx};
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

fn f<'i>(d: &Sleep, cx: CallbackCx<'_>, inv: Invalidation<'i>) -> FirstPass<'i, SecondPass<'static>> { let ack = d.exclude(cx, inv, |_, _, _| ()); inv.defer(|_, _| loop {}) }
