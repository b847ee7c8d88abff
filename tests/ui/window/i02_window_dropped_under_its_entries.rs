//@ error: E0505
//@ contains: cannot move out of `w` because it is borrowed
#![allow(unused)]
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

fn f(mut l: Lease<'_, rank::Mmap, Sleepable>, r: VpnRange) { let mut w = l.window(r, Event::Clear); w.lock_ptes(Vpn(0), |t| { drop(w); t.for_each(|s| { s.clear(); }); }); }
