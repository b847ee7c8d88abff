//@ error: E0521
//@ contains: 
#![allow(unused)]
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

fn f<'a>(t: &mut PteTxn<'a>, out: &mut Option<PteSlot<'a>>) { t.for_each(|s| *out = Some(s)); }
