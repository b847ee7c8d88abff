//@ error: E0308
//@ contains: expected `Seat`, found `TlbSeat`
#![allow(unused)]
use emmu::driver::*;

fn f(seat: TlbSeat) -> Gate<OrderedStore<u64>, (), Atomic> {
    Gate::new(seat, OrderedStore::default(), ())
}
