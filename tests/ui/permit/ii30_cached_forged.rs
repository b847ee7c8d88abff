//@ error: E0451
//@ contains: private
#![allow(unused)]
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};

fn f(old: Cached, found: Translation) -> Cached { Cached { found, ..old } }
