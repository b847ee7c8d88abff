//@ error: E0382
//@ contains: use of moved value: `p`
#![allow(unused)]
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

fn f(p: Permit<'_, OrderedStore<u64>, (), Atomic>) { p.establish(1); p.establish(2); }
