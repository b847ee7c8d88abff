//@ error: E0308
//@ contains: types differ in mutability
#![allow(unused)]
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

fn f(a: &Invalidated<'_>, b: &Invalidated<'_>) { std::mem::swap(&mut a.entries()[0], b.entries().first().unwrap()); }
