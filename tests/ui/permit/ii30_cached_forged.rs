//@ error: E0451
//@ contains: private
#![allow(unused)]
use emmu::{addr::*, ctx::*, extmmu::*, frame::*, mm::*, notifier::*};
use std::{sync::Arc, time::Duration};

fn f(old: Cached, generation: u32) -> Cached { Cached { generation, ..old } }
