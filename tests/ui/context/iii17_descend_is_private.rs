//@ error: E0624
//@ contains: private
#![allow(unused)]

use emmu::ctx::{CallCx, CallbackCx};
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

fn f(mut cx: CallCx<'_>) { let c: CallbackCx<'_> = cx.descend(); }
