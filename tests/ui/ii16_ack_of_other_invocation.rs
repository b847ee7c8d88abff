//@ error: lifetime
//@ contains: lifetime may not live long enough
#![allow(unused)]
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

struct D(Spin); impl D { fn go<'a, 'b>(&self, cx: Cx<'_, rank::Callback, Sleepable>, a: Invalidation<'a>, b: Invalidation<'b>) -> Ack<'b> { self.0.exclude(cx, a, |_, _, _| ()) } }
