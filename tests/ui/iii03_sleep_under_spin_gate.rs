//@ error: E0599
//@ contains: no method named `sleep` found for struct `Cx<'_, emmu::ctx::rank::Gate, emmu::ctx::Atomic>` in the current scope
#![allow(unused)]

use emmu::ctx::{CallCx};
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

fn f(g: &Spin, cx: &mut CallCx<'_>) { let mut g = g.lock(cx); g.cx().sleep(Duration::ZERO); }
