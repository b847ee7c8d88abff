//@ error: E0277
//@ contains: RemovedEntries` is not an iterator
#![allow(unused)]
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

fn f(gone: RemovedEntries) { for entry in gone { drop(entry) } }
