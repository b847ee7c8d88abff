//@ error: E0277
//@ contains: at rank `Callback` one must not wait for windows and callbacks to end
#![allow(unused)]

use emmu::ctx::{CallbackCx};
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

fn f(mm: &Mm, r: Registration, mut cx: CallbackCx<'_>) { mm.unregister(&mut cx, r); }
