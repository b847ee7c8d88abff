//@ error: E0505
//@ contains: cannot move out of `g` because it is borrowed
#![allow(unused)]
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

fn f(mut g: MmapReadGuard<'_>, r: VpnRange) { let mut l = g.lease(); let mut w = l.window(r, Event::Clear); drop(g); w.close(); }
