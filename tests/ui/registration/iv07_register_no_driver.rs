//@ error: E0277
//@ contains: `u64` is not an external MMU
//@ contains: invalidate_start
#![allow(unused)]

use emmu::ctx::{CallCx};
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

fn f(mm: &Arc<emmu::Mm>, cx: &mut CallCx<'_>) { let r = mm.register(cx, |seat| Arc::new(7_u64)); }
