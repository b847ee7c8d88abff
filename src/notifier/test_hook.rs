//! A hook for tests: code that runs at the moments between a translation and its use.
//!
//! Every race between a driver and a window is decided in one of two intervals: from a look-up to
//! the moment at which the driver gets its result, and from the moment at which the driver finds a
//! copy of a translation to its use. A test that acts there can play all of these races on purpose,
//! in a fixed order. There is one hook for each thread; a thread without a hook reads one
//! thread-local cell.

use super::outcome::Access;
use crate::addr::Vpn;
use std::{cell::RefCell, marker::PhantomData};

/// The moment at which a hook is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// A page was looked up for a driver, which has not got the result yet.
    LookedUp(Vpn, Access),
    /// A gate is about to be locked: a copy that its driver has at hand may become stale.
    Locking,
    /// A driver that an oracle watches is about to follow a copy of a translation.
    Following(Vpn, Access),
}

/// The code that runs at these moments.
pub(crate) type Hook = Box<dyn FnMut(Moment)>;

thread_local!(static HOOK: RefCell<Option<Hook>> = const { RefCell::new(None) });

/// Keeps a hook installed until it is dropped.
#[must_use]
pub(crate) struct Hooked(PhantomData<*mut ()>);

/// Installs `hook` on this thread: it is called at each of these moments, except those that it
/// makes itself.
pub(crate) fn hook(hook: Hook) -> Hooked {
    HOOK.with(|h| *h.borrow_mut() = Some(hook));
    Hooked(PhantomData)
}

impl Drop for Hooked {
    fn drop(&mut self) {
        HOOK.with(|h| h.borrow_mut().take());
    }
}

/// Calls the hook of this thread.
pub(crate) fn call(moment: Moment) {
    // Taken out while it runs: the hook may look up pages itself.
    let taken = HOOK.with(|h| h.try_borrow_mut().ok().and_then(|mut h| h.take()));
    if let Some(mut hook) = taken {
        hook(moment);
        HOOK.with(|h| *h.borrow_mut() = Some(hook));
    }
}
