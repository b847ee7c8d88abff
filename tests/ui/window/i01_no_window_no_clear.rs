//@ error: E0599
//@ contains: no method named `lock_ptes` found for struct `emmu::mm::MmapWriteGuard<'g>` in the current scope
#![allow(unused)]
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

fn f(mut g: MmapWriteGuard<'_>) { g.lock_ptes(Vpn(0), |_| ()); }
