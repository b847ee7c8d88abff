//@ error: E0382
//@ contains: use of moved value: `s`
#![allow(unused)]
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

fn f(s: Seat) { let a: Gates<OrderedStore<u64>, (), Atomic> = Gates::new(s, Default::default); let b: Spin = Gate::new(s, OrderedStore::default(), ()); }
