//@ error: E0382
//@ contains: use of moved value: `w`
#![allow(unused)]
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

fn f(mut l: Lease<'_, rank::Mmap, Sleepable>, r: VpnRange) { let w = l.window(r, Event::Clear); w.close(); w.close(); }
