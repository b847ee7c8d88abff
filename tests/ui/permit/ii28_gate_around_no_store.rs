//@ error: E0277
//@ contains: `Vec<u64>` is no store of shadow entries
//@ contains: `NoStore`
#![allow(unused)]
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

fn f(s: Seat) { let g = Gate::<_, _, Atomic>::new(s, Vec::<u64>::new(), ()); }
