//@ error: E0521
//@ contains: borrowed data escapes outside of closure
//@ contains: `t` escapes the closure body here
#![allow(unused)]
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

fn f<'w>(w: &mut InvalidationWindow<'w, Sleepable>, out: &mut Vec<&'w mut PteTxn<'w>>) { w.for_each_leaf(|t| out.push(t)); }
