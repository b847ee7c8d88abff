//@ error: E0599
//@ contains: no method named `window` found for struct `emmu::mm::Lease<'_, emmu::ctx::rank::Mmap, emmu::ctx::Atomic>` in the current scope
#![allow(unused)]
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

fn f(mut l: Lease<'_, rank::Mmap, Sleepable>, r: VpnRange) { let mut nb = l.non_blocking(); nb.window(r, Event::Clear); }
