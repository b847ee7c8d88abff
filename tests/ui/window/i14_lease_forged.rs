//@ error: E0451
//@ contains: private
#![allow(unused)]

use emmu::ctx::{FaultCx};
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

fn f(mm: &Mm, cx: FaultCx<'_>) { let l = Lease { mm, cx }; }
