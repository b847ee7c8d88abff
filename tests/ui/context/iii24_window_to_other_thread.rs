//@ error: E0277
//@ contains: cannot be sent between threads
#![allow(unused)]
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

fn f(w: InvalidationWindow<'_, Atomic>) { std::thread::scope(|s| { s.spawn(move || w.close()); }); }
