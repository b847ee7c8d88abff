//@ error: E0277
//@ contains: the trait bound `emmu::driver::Seat:
#![allow(unused)]
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

fn f(s: &Seat) -> Seat { Seat::clone(s) }
