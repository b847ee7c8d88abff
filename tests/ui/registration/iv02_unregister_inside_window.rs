//@ error: E0277
//@ contains: unregister a driver from outside of windows and callbacks
#![allow(unused)]
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

fn f(w: &mut InvalidationWindow<'_, Sleepable>, r: Registration) { r.unregister(&mut w.cx()); }
