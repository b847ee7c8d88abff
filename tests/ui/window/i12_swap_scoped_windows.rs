//@ error: E0521
//@ contains: borrowed data escapes outside of closure
//@ contains: `y` escapes the closure body here
#![allow(unused)]
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

fn f(mut a: Lease<'_, rank::Mmap, Sleepable>, mut b: Lease<'_, rank::Rmap, Sleepable>, r: VpnRange) { a.with_window(r, Event::Clear, |x| b.with_window(r, Event::Clear, |y| std::mem::swap(x, y))); }
