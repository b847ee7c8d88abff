//@ error: E0382
//@ contains: use of moved value: `r`
#![allow(unused)]
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

fn f(mut g: MmapWriteGuard<'_>, r: Registration) { g.unregister(r); g.unregister(r); }
