//@ error: E0308
//@ contains: expected `DeviceMemory`, found `&DeviceMemory`
#![allow(unused)]
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

fn f(memory: &DeviceMemory) -> DeviceMemory { memory.clone() }
