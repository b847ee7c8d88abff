//@ error: lifetime
//@ contains: lifetime may not live long enough
#![allow(unused)]
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

fn f<'i, 'o>(g: &Spin, cx: AtomicCallbackCx<'_>, inv: Invalidation<'i>, other: Spared<'o>) -> Ack<'i> { g.exclude_sparing(cx, inv, other, |_, _, _| ()) }
