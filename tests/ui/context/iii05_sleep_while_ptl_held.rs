//@ error: E0499
//@ contains: cannot borrow `w` as mutable more than once at a time
//@ contains: first borrow later used by call
#![allow(unused)]
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

fn f(mut w: InvalidationWindow<'_, Sleepable>) { w.for_each_leaf(|t| { w.cx().sleep(Duration::ZERO); t.range(); }); }
