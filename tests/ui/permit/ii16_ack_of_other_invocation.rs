//@ error: lifetime
//@ contains: lifetime may not live long enough
#![allow(unused)]

use emmu::ctx::{CallbackCx};
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

struct D(Spin); impl D { fn go<'a, 'b>(&self, cx: CallbackCx<'_>, a: Invalidation<'a>, b: Invalidation<'b>) -> Ack<'b> { self.0.exclude(cx, a, |_, _, _| ()) } }
