//! A hook for tests: code that runs after a page was looked up for a driver, and before the driver
//! gets it.
//!
//! Every race between a fault and a window is decided in that interval, so a test that acts there
//! can play all of them on purpose, in a fixed order. There is one hook for each thread; a thread
//! without a hook reads one thread-local cell.

use super::outcome::Access;
use crate::addr::Vpn;
use std::{cell::RefCell, marker::PhantomData};

/// The code between a look-up and its use.
pub(crate) type Hook = Box<dyn FnMut(Vpn, Access)>;

thread_local!(static HOOK: RefCell<Option<Hook>> = const { RefCell::new(None) });

/// Keeps a hook installed until it is dropped.
#[must_use]
pub(crate) struct Hooked(PhantomData<*mut ()>);

/// Installs `hook` on this thread: it is called after each look-up, except those that it makes
/// itself.
pub(crate) fn hook(hook: Hook) -> Hooked {
    HOOK.with(|h| *h.borrow_mut() = Some(hook));
    Hooked(PhantomData)
}

impl Drop for Hooked {
    fn drop(&mut self) {
        HOOK.with(|h| h.borrow_mut().take());
    }
}

/// Calls the hook of this thread after a look-up.
pub(crate) fn looked_up(at: Vpn, access: Access) {
    // Taken out while it runs: the hook may look up pages itself.
    let taken = HOOK.with(|h| h.try_borrow_mut().ok().and_then(|mut h| h.take()));
    if let Some(mut hook) = taken {
        hook(at, access);
        HOOK.with(|h| *h.borrow_mut() = Some(hook));
    }
}
