//! A hook for tests: code that runs at the moments between a translation and its use.
//!
//! Every race between a driver and a window is decided in one of three intervals: from a look-up to
//! the moment at which the driver gets its result, from there to the moment at which the driver has
//! entered the result in a TLB, and from the moment at which the driver finds a copy of a
//! translation to its use. A test that acts there can play all of these races on purpose, in a
//! fixed order.
//!
//! A hook belongs to an address space, and is called on each thread of its drivers: a driver may
//! look pages up on a thread of its own. The threads of a test that act meanwhile
//! [stand by](stand_by). Without any hook a moment is one load.

use super::outcome::Access;
use crate::addr::Vpn;
use std::{
    cell::Cell,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// The moment at which a hook is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// A page was looked up for a driver, which has not got the result yet.
    LookedUp(Vpn, Access),
    /// A page was looked up for writing, as one of a range.
    RequestedForWriting(Vpn),
    /// A gate is about to be locked: a copy that its driver has at hand may become stale.
    Locking,
    /// A gate was unlocked: a copy that its driver has made, and not entered yet, may become stale.
    Unlocked,
    /// A driver was told that a translation is current, under a lock of its own or under none.
    Validated(Vpn),
    /// A driver that an oracle watches is about to follow a copy of a translation.
    Following(Vpn, Access),
}

/// The code that runs at these moments, on several threads at once.
pub(crate) type Hook = Arc<dyn Fn(Moment) + Send + Sync>;

/// An address space that has, or had, a driver: the address of its board.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HookedSpace(pub(super) usize);

static HOOKS: Mutex<Vec<(HookedSpace, Hook)>> = Mutex::new(Vec::new());
static COUNT: AtomicUsize = AtomicUsize::new(0);

thread_local!(static STANDS_BY: Cell<bool> = const { Cell::new(false) });

#[allow(clippy::disallowed_methods, reason = "nothing waits under it")]
fn hooks() -> MutexGuard<'static, Vec<(HookedSpace, Hook)>> {
    HOOKS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets this thread pass every moment without a hook from now on.
pub(crate) fn stand_by() {
    STANDS_BY.set(true);
}

/// Keeps a hook installed until it is dropped. No call of the hook outlasts that.
#[must_use]
pub(crate) struct Hooked(Hook);

/// Installs `hook` for the drivers of an address space.
pub(crate) fn hook(space: HookedSpace, hook: Hook) -> Hooked {
    hooks().push((space, Arc::clone(&hook)));
    COUNT.fetch_add(1, Ordering::SeqCst);
    Hooked(hook)
}

impl Drop for Hooked {
    fn drop(&mut self) {
        hooks().retain(|(_, hook)| !Arc::ptr_eq(hook, &self.0));
        COUNT.fetch_sub(1, Ordering::SeqCst);
        while Arc::strong_count(&self.0) > 1 {
            thread::yield_now();
        }
    }
}

/// Calls the hook of an address space.
#[inline]
pub(crate) fn call(space: HookedSpace, moment: Moment) {
    if COUNT.load(Ordering::Relaxed) > 0 && !STANDS_BY.get() {
        call_hooked(space, moment);
    }
}

#[cold]
fn call_hooked(space: HookedSpace, moment: Moment) {
    let all = hooks();
    let mine = all.iter().find(|(hooked, _)| *hooked == space);
    let mine = mine.map(|(_, hook)| Arc::clone(hook));
    drop(all);
    if let Some(hook) = mine {
        hook(moment);
    }
}
