//@ error: E0382
//@ contains: use of moved value: `inv`
#![allow(unused)]

use emmu::ctx::{CallbackCx};
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

fn f<'i>(g: &Spin, mut cx: CallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> { let a = g.exclude(cx.reborrow(), inv, |_, _, _| ()); g.exclude(cx, inv, |_, _, _| ()) }
