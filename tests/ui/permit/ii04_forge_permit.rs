//@ error: E0451
//@ contains: private
#![allow(unused)]
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

fn f() { let p: Permit<'_, OrderedStore<u64>, (), Atomic> = Permit { guard: loop {}, seat: loop {}, vpn: Vpn(0), found: loop {}, ..loop {} }; }
