//@ error: E0599
//@ contains: no method named `window` found for reference `&emmu::Mm` in the current scope
#![allow(unused)]
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

fn f(mm: &Mm, r: VpnRange) { mm.window(r, Event::Clear); }
