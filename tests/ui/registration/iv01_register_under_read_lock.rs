//@ error: E0599
//@ contains: no method named `register` found for struct `emmu::mm::MmapReadGuard<'g>` in the current scope
#![allow(unused)]
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

fn f(mut g: MmapReadGuard<'_>) { g.register(Recorder::new); }
