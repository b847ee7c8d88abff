//@ error: lifetime
//@ contains: lifetime may not live long enough
//@ contains: must outlive `'static`
#![allow(unused)]

use emmu::ctx::{CallbackCx};
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

struct D(Option<CallbackCx<'static>>); impl D { fn go<'i>(&mut self, cx: CallbackCx<'_>) { self.0 = Some(cx); } }
