//@ error: E0117
//@ contains: only traits defined in the current crate can be implemented for types defined outside of the crate
#![allow(unused)]
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};
type Spin = Gate<OrderedStore<u64>, (), Atomic>;
type Sleep = Gate<OrderedStore<u64>, u64, Sleepable>;

impl Rearrange for OrderedStore<u64> {
    type How = OrderedStore<u64>;
    fn rearrange(&mut self, how: OrderedStore<u64>, _: &mut RemovedEntries) { *self = how; }
}
