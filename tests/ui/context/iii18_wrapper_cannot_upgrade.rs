//@ error: E0308
//@ contains: mismatched types
//@ contains: expected `Cx<'_, Callback, Sleepable>`, found `Cx<'_, Callback, Atomic>`
#![allow(unused)]

use emmu::ctx::{AtomicCallbackCx, CallbackCx};
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

struct W(Arc<dyn ExternalMmu>); impl ExternalMmu for W { fn invalidate_start<'i>(&self, cx: CallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> { self.0.invalidate_start(cx, inv) } fn try_invalidate_start<'i>(&self, cx: AtomicCallbackCx<'_>, inv: Invalidation<'i>) -> Result<Ack<'i>, WouldBlock> { Ok(self.0.invalidate_start(cx, inv)) } }
