//@ error: E0308
//@ contains: expected `TlbSeat`, found `Seat`
#![allow(unused)]
use emmu::driver::*;

fn f(seat: Seat) -> TlbGate<()> {
    TlbGate::new(seat, ())
}
