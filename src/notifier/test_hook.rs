//! A place where a test may step in: after a page was looked up for a driver, before the driver knows.
//!
//! That is where every race between a fault and a window is lost or won, so whoever can act there can play all of them
//! on purpose, in a fixed order. There is one hook a thread; a thread without one pays a look at a thread-local cell.

use super::outcome::Access;
use crate::addr::Vpn;
use std::{cell::RefCell, marker::PhantomData};

/// What is done between a look-up and its use.
pub(crate) type Hook = Box<dyn FnMut(Vpn, Access)>;

thread_local!(static HOOK: RefCell<Option<Hook>> = const { RefCell::new(None) });

/// The hook is in place until this is dropped.
#[must_use]
pub(crate) struct Hooked(PhantomData<*mut ()>);

/// Has `hook` called on this thread after each look-up. Look-ups that it makes itself are not shown to it.
pub(crate) fn hook(hook: Hook) -> Hooked {
    HOOK.with(|h| *h.borrow_mut() = Some(hook));
    Hooked(PhantomData)
}

impl Drop for Hooked {
    fn drop(&mut self) {
        HOOK.with(|h| h.borrow_mut().take());
    }
}

/// A page was looked up for such an access.
pub(crate) fn looked_up(at: Vpn, access: Access) {
    // Taken out while it runs: it may look up pages itself.
    let taken = HOOK.with(|h| h.try_borrow_mut().ok().and_then(|mut h| h.take()));
    if let Some(mut hook) = taken {
        hook(at, access);
        HOOK.with(|h| *h.borrow_mut() = Some(hook));
    }
}
