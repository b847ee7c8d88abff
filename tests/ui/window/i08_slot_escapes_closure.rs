//@ error: E0521
//@ contains: borrowed data escapes outside of closure
//@ contains: `s` escapes the closure body here
#![allow(unused)]
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

fn f<'a>(t: &mut PteTxn<'a>, out: &mut Option<PteSlot<'a>>) { t.for_each(|s| *out = Some(s)); }
