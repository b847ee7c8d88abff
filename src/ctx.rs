//! What the current thread may do next: a token with two axes.
//!
//! * [`Rank`]: which lock may be taken next; the order of [`rank`] *is* the lock order;
//! * [`Context`]: whether the thread may block ([`Sleepable`], [`Atomic`]).
//!
//! A [`Cx`] is derived by *mutably borrowing* its parent, so while a guard lives, what its lock forbids cannot be
//! reached. There is one derivation, `descend`, and its two bounds are the whole rule set; the raw constructor is
//! private to this file.

use crate::sync;
use crossbeam_epoch::{Collector, Guard, LocalHandle};
use std::{cell::Cell, fmt, marker::PhantomData, time::Duration};

mod sealed {
    pub trait Sealed {}
}

/// Whether blocking is permitted.
pub trait Context: sealed::Sealed + EnterFrom<Self> + Sized + 'static {}
/// The thread may block.
#[derive(Debug)]
pub enum Sleepable {}
/// A spin lock, an epoch pin or a non-blocking section is in force.
#[derive(Debug)]
pub enum Atomic {}
impl sealed::Sealed for Sleepable {}
impl sealed::Sealed for Atomic {}
impl Context for Sleepable {}
impl Context for Atomic {}

/// `Self` may be entered from `Outer`: atomic from anywhere, sleepable only from sleepable.
#[diagnostic::on_unimplemented(
    message = "a context that may sleep cannot be entered from `{Outer}`",
    label = "would sleep in atomic context"
)]
pub trait EnterFrom<Outer>: sealed::Sealed {}
impl<Outer> EnterFrom<Outer> for Atomic {}
impl EnterFrom<Sleepable> for Sleepable {}

/// A rung of the lock ladder.
pub trait Rank: sealed::Sealed + 'static {}

/// `Next` may be acquired while at `Self`.
#[diagnostic::on_unimplemented(
    message = "lock rank `{Next}` must not be acquired at rank `{Self}`",
    label = "lock order violation",
    note = "order: Idle < Mmap < Cache < Folio < Rmap < Window < Ptl < Callback < Gate"
)]
pub trait Below<Next: Rank>: Rank {}

/// No window is open, no reverse map locked and no callback running on this thread: it may wait until those of others have
/// ended. So at most an mmap lock is held.
#[diagnostic::on_unimplemented(
    message = "at rank `{Self}` one must not wait for windows and callbacks to end: this may be one of them",
    label = "would wait for itself",
    note = "unregister a driver from outside of windows and callbacks: at rank Idle or Mmap"
)]
pub trait Outside: Below<rank::Callback> {}
impl Outside for rank::Idle {}
impl Outside for rank::Mmap {}

/// The ranks, outermost first. This list is the lock order.
pub mod rank {
    use super::{Below, Rank, sealed::Sealed};
    macro_rules! ladder {
        () => {};
        ($(#[$m:meta])* $head:ident, $($(#[$n:meta])* $rest:ident,)*) => {
            $(#[$m])*
            #[derive(Debug)]
            pub enum $head {}
            impl Sealed for $head {}
            impl Rank for $head {}
            $(impl Below<$rest> for $head {})*
            ladder!($($(#[$n])* $rest,)*);
        };
    }
    ladder! {
        /// No lock of this crate is held.
        Idle,
        /// An address space's mmap lock is held.
        Mmap,
        /// Pages are kept from coming into an object's cache, or from being cut out of it.
        Cache,
        /// A frame is locked: its owner and its place in it stand still.
        Folio,
        /// A reverse-map lock is held.
        Rmap,
        /// An invalidation window is open.
        Window,
        /// A page-table lock is held.
        Ptl,
        /// Inside a callback of an external MMU.
        Callback,
        /// A driver's gate is held.
        Gate,
    }
}

/// Reclamation of what lock-free readers may still see: a collector of one machine's own.
#[derive(Clone, Debug)]
pub struct Epoch(Collector);

impl Default for Epoch {
    fn default() -> Self {
        Self::new()
    }
}

impl Epoch {
    /// A collector that nobody has entered.
    pub fn new() -> Self {
        Self(Collector::new())
    }
    /// Whether the pin is one of this collector.
    pub(crate) fn owns(&self, guard: &Guard) -> bool {
        guard.collector() == Some(&self.0)
    }
    /// A participant without a token, for a `Drop` that must walk.
    pub(crate) fn register(&self) -> LocalHandle {
        self.0.register()
    }
}

/// Capability token: rank `R`, context `C`, valid for `'t`. Not `Send`.
#[must_use]
pub struct Cx<'t, R: Rank, C: Context> {
    local: &'t LocalHandle,
    /// Borrows the parent exclusively; neither `Send` nor `Sync`.
    kind: PhantomData<Kind<'t, R, C>>,
}
type Kind<'t, R, C> = (&'t mut (), fn() -> (R, C), *mut ());

/// A token outside of every lock: calls of an address space take it.
pub type CallCx<'t> = Cx<'t, rank::Idle, Sleepable>;
/// A token below the mmap lock: objects get it when a fault asks them for a page.
pub type FaultCx<'t> = Cx<'t, rank::Mmap, Sleepable>;
/// A token inside a callback of a driver that may sleep.
pub type CallbackCx<'t> = Cx<'t, rank::Callback, Sleepable>;
/// A token inside a callback of a driver that must not sleep.
pub type AtomicCallbackCx<'t> = Cx<'t, rank::Callback, Atomic>;
/// A token below the lock of a frame.
pub(crate) type FolioCx<'t> = Cx<'t, rank::Folio, Sleepable>;

impl<'t, R: Rank, C: Context> Cx<'t, R, C> {
    #[inline(always)]
    const fn forge(local: &'t LocalHandle) -> Self {
        Cx {
            local,
            kind: PhantomData,
        }
    }
    /// Lends the token.
    #[inline(always)]
    pub const fn reborrow(&mut self) -> Cx<'_, R, C> {
        Cx::forge(self.local)
    }
    /// Derives the token of an inner lock. The two bounds are the rules.
    #[inline(always)]
    pub(crate) fn descend<N: Rank, D: Context + EnterFrom<C>>(&mut self) -> Cx<'_, N, D>
    where
        R: Below<N>,
    {
        Cx::forge(self.local)
    }
    /// [`descend`](Self::descend) by value.
    #[inline(always)]
    pub(crate) fn into_descended<N: Rank, D: Context + EnterFrom<C>>(self) -> Cx<'t, N, D>
    where
        R: Below<N>,
    {
        Cx::forge(self.local)
    }
    /// Forbids blocking for as long as the result lives.
    pub const fn non_blocking(&mut self) -> Cx<'_, R, Atomic> {
        Cx::forge(self.local)
    }
    /// Pins the reclamation epoch; nothing may sleep while the pin lives.
    ///
    /// A pin that is forgotten ([`std::mem::forget`]) keeps in memory whatever is taken out from then on: drivers, table pages.
    pub fn pin(&mut self) -> Pinned<'_, R> {
        Pinned {
            guard: self.local.pin(),
            cx: Cx::forge(self.local),
        }
    }
    /// Whether the thread entered with this collector.
    pub(crate) fn epoch_is(&self, epoch: &Epoch) -> bool {
        self.local.collector() == &epoch.0
    }
    /// The collector that the thread entered with.
    pub(crate) fn epoch(&self) -> Epoch {
        Epoch(self.local.collector().clone())
    }
}

impl Cx<'_, rank::Window, Sleepable> {
    /// A reverse map is walked inside a window, as when part of a huge page is given up. A window is no lock, so the
    /// order of locks still holds, as long as no reverse map is locked outside of it: the caller sees to that.
    pub(crate) const fn walk_inside(&mut self) -> Cx<'_, rank::Rmap, Sleepable> {
        Cx::forge(self.local)
    }
}

impl<R: Rank> Cx<'_, R, Sleepable> {
    /// Blocks. Stands for every blocking primitive.
    #[allow(clippy::disallowed_methods, reason = "this is the door")]
    pub fn sleep(&mut self, time: Duration) {
        sync::thread::sleep(time);
    }
}

impl<R: Rank, C: Context> fmt::Debug for Cx<'_, R, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::any::type_name::<Self>())
    }
}

/// An epoch pin: what was reachable when it was taken stays.
pub struct Pinned<'p, R: Rank> {
    guard: Guard,
    cx: Cx<'p, R, Atomic>,
}

impl<R: Rank> Pinned<'_, R> {
    /// The (atomic) token usable while pinned.
    pub fn cx(&mut self) -> Cx<'_, R, Atomic> {
        self.cx.reborrow()
    }
    pub(crate) fn guard(&self) -> &Guard {
        &self.guard
    }
    /// Pin and token at once.
    pub(crate) fn parts(&mut self) -> (&Guard, Cx<'_, R, Atomic>) {
        (&self.guard, self.cx.reborrow())
    }
}

impl<R: Rank> fmt::Debug for Pinned<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pinned").finish_non_exhaustive()
    }
}

#[cfg(not(loom))]
sync::thread_local!(static ENTERED: Cell<bool> = const { Cell::new(false) });
// Its macro knows no constants.
#[cfg(loom)]
sync::thread_local!(static ENTERED: Cell<bool> = Cell::new(false));

/// A thread that entered a machine: the root of all its tokens. Not `Send`.
#[derive(Debug)]
pub struct Thread {
    /// Dropped first: the participant must not be the one that drops the collector which it is part of.
    local: LocalHandle,
    _collector: Epoch,
}

/// The current thread already holds a [`Thread`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this thread already entered a machine")]
pub struct AlreadyEntered;

impl Thread {
    /// Registers the current thread.
    ///
    /// # Errors
    ///
    /// [`AlreadyEntered`] while another `Thread` of this thread lives: two roots would be two lock orders.
    pub fn enter(epoch: &Epoch) -> Result<Self, AlreadyEntered> {
        if ENTERED.with(|e| e.replace(true)) {
            Err(AlreadyEntered)
        } else {
            Ok(Self {
                local: epoch.register(),
                _collector: epoch.clone(),
            })
        }
    }
    /// The outermost token.
    pub const fn cx(&mut self) -> Cx<'_, rank::Idle, Sleepable> {
        Cx::forge(&self.local)
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        ENTERED.with(|e| e.set(false));
    }
}
