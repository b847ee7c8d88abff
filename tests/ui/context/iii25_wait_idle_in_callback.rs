//@ error: E0277
//@ contains: at rank `Callback` one must not wait for windows and callbacks to end
#![allow(unused)]

use emmu::ctx::{CallbackCx};
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

fn f(g: &Spin, mut cx: CallbackCx<'_>, r: VpnRange) { g.wait_idle(&mut cx, r); }
