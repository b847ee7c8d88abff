//@ error: E0521
//@ contains: borrowed data escapes
#![allow(unused)]
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

fn f<'g>(g: &'g Spin, kept: &mut Option<&'g OrderedStore<u64>>) { g.audited(|store| *kept = Some(store)); }
