//@ error: lifetime
//@ contains: lifetime may not live long enough
//@ contains: must outlive `'static`
#![allow(unused)]
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

struct D(Option<Cx<'static, rank::Callback, Sleepable>>); impl D { fn go<'i>(&mut self, cx: Cx<'_, rank::Callback, Sleepable>) { self.0 = Some(cx); } }
