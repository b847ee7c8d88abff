//@ error: E0521
//@ contains: `self` escapes the method body here
#![allow(unused)]
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

struct D(std::sync::Mutex<Option<SecondPass<'static>>>, Sleep); impl D { fn go<'s, 'i>(&'s self, inv: Invalidation<'i>) { if let FirstPass::Deferred(f) = inv.defer(|cx, inv| self.1.exclude(cx, inv, |_, _, _| ())) { *self.0.lock().unwrap() = Some(f); } } }
