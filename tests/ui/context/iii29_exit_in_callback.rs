//@ error: E0308
//@ contains: mismatched types
//@ contains: expected `&mut Cx<'_, Idle, Sleepable>`, found `&mut Cx<'_, Callback, Sleepable>`
#![allow(unused)]

use emmu::ctx::{CallbackCx};
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

fn f(mm: &Mm, mut cx: CallbackCx<'_>) { mm.exit(&mut cx); }
