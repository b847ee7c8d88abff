//@ error: E0308
//@ contains: expected `DeviceMemory`, found `DeviceId`
#![allow(unused)]
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

fn f<'i>(inv: &Invalidation<'i>) -> Option<Spared<'i>> { inv.spare(&inv.owner()?) }
