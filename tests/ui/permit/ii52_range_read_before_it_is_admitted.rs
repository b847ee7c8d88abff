//@ error: E0599
//@ contains: no method named `frame` found
#![allow(unused)]
use emmu::driver::*;
type Spin = Gate<OrderedStore<u64>, (), Atomic>;

fn f(p: RangePending<'_, Spin>) {
    let frame = p.frame(p.range().start());
}
