//@ error: E0277
//@ contains: unregister a driver from outside of windows and callbacks
#![allow(unused)]
use emmu::driver::*;

fn f(registration: TlbRegistration, mut cx: CallbackCx<'_>) {
    registration.unregister(&mut cx);
}
