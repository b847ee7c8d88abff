//@ error: E0277
//@ contains: must not be acquired
#![allow(unused)]

use emmu::ctx::{CallbackCx};
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

struct D(Spin, Arc<Mm>); impl ExternalMmu for D { fn invalidate_start<'i>(&self, mut cx: CallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> { drop(self.1.lock_shared(&mut cx)); self.0.exclude(cx, inv, |_, _, _| ()) } }
