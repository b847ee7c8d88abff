//@ error: E0382
//@ contains: use of moved value: `p`
#![allow(unused)]
use emmu::driver::*;

fn f(p: RangePermit<'_, OrderedStore<Vpn>, (), Atomic>) {
    let _gate = p.establish(|t| t.range().start());
    let _again = p.establish(|t| t.range().start());
}
