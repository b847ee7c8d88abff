//@ error: E0451
//@ contains: fields `memory` and `_brand` of struct
#![allow(unused)]
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

fn f<'i>(id: DeviceId) -> Spared<'i> { Spared { memory: id, _brand: std::marker::PhantomData } }
