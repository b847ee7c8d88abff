//@ error: E0382
//@ contains: use of moved value: `t`
#![allow(unused)]

use emmu::ctx::{CallCx};
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

fn f(mm: &Mm, mut cx: CallCx<'_>, t: Ticket<'_, Spin>) { let a = mm.resolve(&mut cx, t); let b = mm.resolve(&mut cx, t); }
