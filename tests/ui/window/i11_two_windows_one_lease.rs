//@ error: E0499
//@ contains: cannot borrow `l` as mutable more than once at a time
//@ contains: second mutable borrow occurs here
#![allow(unused)]
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

fn f(mut l: Lease<'_, rank::Mmap, Sleepable>, r: VpnRange) { let a = l.window(r, Event::Clear); let b = l.window(r, Event::Clear); a.close(); }
