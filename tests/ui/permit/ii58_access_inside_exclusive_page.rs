//@ error: E0277
//@ contains: lock order violation
#![allow(unused)]
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

fn f(mm: &Mm, cx: &mut CallCx<'_>) { let _ = mm.make_device_exclusive(cx, 0x10000, None, |page, mut cx| { let _ = mm.lock_shared(&mut cx); }); }
