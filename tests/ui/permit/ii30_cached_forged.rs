//@ error: E0423
//@ contains: private
#![allow(unused)]
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};

fn f(t: Translation) -> Cached { Cached(t) }
