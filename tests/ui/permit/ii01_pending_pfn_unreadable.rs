//@ error: E0599
//@ contains: no method named `pfn` found for struct `emmu::driver::Pending<'g, G>` in the current scope
#![allow(unused)]
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

fn f(p: Pending<'_, Spin>) { p.pfn(); }
