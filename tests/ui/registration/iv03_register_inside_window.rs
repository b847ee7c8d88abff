//@ error: E0499
//@ contains: cannot borrow `g` as mutable more than once at a time
//@ contains: first borrow later used here
#![allow(unused)]
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

fn f(mut g: MmapWriteGuard<'_>, r: VpnRange) { let mut l = g.lease(); let w = l.window(r, Event::Clear); g.register(Recorder::new); w.close(); }
