//@ error: E0308
//@ contains: types differ in mutability
#![allow(unused)]
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

fn f(a: GateGuard<'_, OrderedStore<u64>, (), Atomic>, b: &mut OrderedStore<u64>) { std::mem::swap(a.store(), b); }
