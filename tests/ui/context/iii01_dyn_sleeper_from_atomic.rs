//@ error: E0308
//@ contains: mismatched types
//@ contains: expected `Cx<'_, Callback, Sleepable>`, found `Cx<'_, Callback, Atomic>`
#![allow(unused)]

use emmu::ctx::{AtomicCallbackCx};
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

fn f<'i>(d: &dyn ExternalMmu, cx: AtomicCallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> { d.invalidate_start(cx, inv) }
