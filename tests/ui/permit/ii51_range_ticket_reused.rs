//@ error: E0382
//@ contains: use of moved value: `t`
#![allow(unused)]
use emmu::driver::*;
type Spin = Gate<OrderedStore<u64>, (), Atomic>;

fn f(mm: &Mm, cx: &mut CallCx<'_>, t: RangeTicket<'_, Spin>) {
    let _first = mm.resolve_range(cx, t);
    let _again = mm.resolve_range(cx, t);
}
