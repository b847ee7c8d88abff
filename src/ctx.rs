//! Tokens that state, in types, the next lock that a thread may take and if it may block.
//!
//! A [`Cx`] has two parameters:
//!
//! * [`Rank`]: the locks that may be taken next; the order of [`rank`] *is* the lock order;
//! * [`Context`]: [`Sleepable`] or [`Atomic`], that is, if the thread may block.
//!
//! A token is derived by *mutably borrowing* its parent. So while a guard lives, calls that its
//! lock forbids do not compile. There is one derivation, `descend`, and its two bounds are the
//! whole rule set; the raw constructor is private to this file and to `thread`, which makes the
//! outermost token of a thread (docs/adr/0001-the-token-carries-the-epoch-handle.md,
//! docs/adr/0002-leaf-locks-and-closures.md).

use crate::sync;
use crossbeam_epoch::{Collector, Guard, LocalHandle};
use std::{fmt, marker::PhantomData, time::Duration};

mod thread;

pub use thread::{AlreadyEntered, Thread, TokenInUse};

mod sealed {
    pub trait Sealed {}
}

/// The permission to block, or its absence.
pub trait Context: sealed::Sealed + EnterFrom<Self> + Sized + 'static {}
/// The thread may block.
#[derive(Debug)]
pub enum Sleepable {}
/// The thread must not block: it holds a spin lock or an epoch pin, or is in a non-blocking
/// section.
#[derive(Debug)]
pub enum Atomic {}
impl sealed::Sealed for Sleepable {}
impl sealed::Sealed for Atomic {}
impl Context for Sleepable {}
impl Context for Atomic {}

/// `Self` may be entered from `Outer`: [`Atomic`] from any context, [`Sleepable`] only from
/// `Sleepable`.
#[diagnostic::on_unimplemented(
    message = "a context that may sleep cannot be entered from `{Outer}`",
    label = "would sleep in atomic context"
)]
pub trait EnterFrom<Outer>: sealed::Sealed {}
impl<Outer> EnterFrom<Outer> for Atomic {}
impl EnterFrom<Sleepable> for Sleepable {}

/// A rank in the lock order.
pub trait Rank: sealed::Sealed + 'static {}

/// A lock of rank `Next` may be taken at rank `Self`.
#[diagnostic::on_unimplemented(
    message = "lock rank `{Next}` must not be acquired at rank `{Self}`",
    label = "lock order violation",
    note = "order: Idle < Mmap < Cache < Folio < Rmap < Window < Ptl < Callback < Gate"
)]
pub trait Below<Next: Rank>: Rank {}

/// The thread has no open window, no locked reverse map and no running callback, so it may wait
/// until those of other threads have ended. It holds an mmap lock at most.
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
        /// No page comes into an object's cache, and none is cut out of it.
        Cache,
        /// A frame is locked: its owner and its place there do not change.
        Folio,
        /// A reverse-map lock is held.
        Rmap,
        /// An invalidation window is open.
        Window,
        /// The lock of a leaf table is held.
        Ptl,
        /// A callback of an external MMU is running.
        Callback,
        /// A driver's gate is held.
        Gate,
    }
}

/// The garbage collector of one machine: memory that lock-free readers may still see is freed
/// later.
#[derive(Clone, Debug)]
pub struct Epoch(Collector);

impl Default for Epoch {
    fn default() -> Self {
        Self::new()
    }
}

impl Epoch {
    /// Makes a collector that no thread has entered.
    pub fn new() -> Self {
        Self(Collector::new())
    }
    /// Returns true if the pin belongs to this collector.
    pub(crate) fn owns(&self, guard: &Guard) -> bool {
        guard.collector() == Some(&self.0)
    }
    /// Registers a participant without a token, for a `Drop` that must walk.
    pub(crate) fn register(&self) -> LocalHandle {
        self.0.register()
    }
}

/// A token of rank `R` and context `C`, valid for `'t`. It is not `Send`.
///
/// A lock of a lower rank than the token's cannot be taken. A thread that holds a driver's gate
/// cannot take the mmap lock, which the opener of a window may hold while it waits for that gate:
///
/// ```compile_fail,E0277
/// use emmu::driver::*;
///
/// fn backwards(mm: &Mm, mut gate: GateGuard<'_, OrderedStore<Vpn>, (), Sleepable>) {
///     let _deadlock = mm.lock_shared(&mut gate.cx());
/// }
/// ```
#[must_use]
pub struct Cx<'t, R: Rank, C: Context> {
    local: &'t LocalHandle,
    /// Borrows the parent exclusively; neither `Send` nor `Sync`.
    kind: PhantomData<Kind<'t, R, C>>,
}
type Kind<'t, R, C> = (&'t mut (), fn() -> (R, C), *mut ());

/// A token outside of every lock, for calls of an address space.
pub type CallCx<'t> = Cx<'t, rank::Idle, Sleepable>;
/// A token below the mmap lock, for objects that a fault asks for a page.
pub type FaultCx<'t> = Cx<'t, rank::Mmap, Sleepable>;
/// A token inside of a driver's callback that may sleep.
pub type CallbackCx<'t> = Cx<'t, rank::Callback, Sleepable>;
/// A token inside of a driver's callback that must not sleep.
pub type AtomicCallbackCx<'t> = Cx<'t, rank::Callback, Atomic>;
/// A token below the lock of a frame, for drivers that are notified by frame.
pub type FolioCx<'t> = Cx<'t, rank::Folio, Sleepable>;

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
    /// Derives the token for the holder of an inner lock. The two bounds are the rules.
    #[inline(always)]
    pub(crate) fn descend<N: Rank, D: Context + EnterFrom<C>>(&mut self) -> Cx<'_, N, D>
    where
        R: Below<N>,
    {
        Cx::forge(self.local)
    }
    /// Derives the token for the holder of an inner lock, as [`descend`](Self::descend) does, and
    /// consumes this one.
    #[inline(always)]
    pub(crate) fn into_descended<N: Rank, D: Context + EnterFrom<C>>(self) -> Cx<'t, N, D>
    where
        R: Below<N>,
    {
        Cx::forge(self.local)
    }
    /// Forbids blocking while the result lives.
    pub const fn non_blocking(&mut self) -> Cx<'_, R, Atomic> {
        Cx::forge(self.local)
    }
    /// Pins the reclamation epoch; the thread must not sleep while the pin lives.
    ///
    /// A pin that is forgotten ([`std::mem::forget`]) keeps in memory everything that is removed
    /// from then on: drivers, table pages.
    pub fn pin(&mut self) -> Pinned<'_, R> {
        Pinned {
            guard: self.local.pin(),
            cx: Cx::forge(self.local),
        }
    }
    /// Returns true if the thread entered with this collector.
    pub(crate) fn epoch_is(&self, epoch: &Epoch) -> bool {
        self.local.collector() == &epoch.0
    }
    /// Returns the collector that the thread entered with.
    pub(crate) fn epoch(&self) -> Epoch {
        Epoch(self.local.collector().clone())
    }
}

impl Cx<'_, rank::Window, Sleepable> {
    /// Derives the token of a reverse-map walk inside of a window, as when part of a huge page is
    /// given up.
    ///
    /// A window is no lock, so the lock order still holds as long as no reverse map is locked
    /// outside of the window; the caller guarantees that.
    pub(crate) const fn walk_inside(&mut self) -> Cx<'_, rank::Rmap, Sleepable> {
        Cx::forge(self.local)
    }
}

impl<R: Rank> Cx<'_, R, Sleepable> {
    /// Blocks for a time. Stands for every blocking primitive.
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

/// An epoch pin: everything that was reachable when it was taken stays in memory.
pub struct Pinned<'p, R: Rank> {
    guard: Guard,
    cx: Cx<'p, R, Atomic>,
}

impl<R: Rank> Pinned<'_, R> {
    /// Returns the token for calls while pinned, which must not block.
    pub fn cx(&mut self) -> Cx<'_, R, Atomic> {
        self.cx.reborrow()
    }
    pub(crate) fn guard(&self) -> &Guard {
        &self.guard
    }
    /// Returns the pin and the token.
    pub(crate) fn parts(&mut self) -> (&Guard, Cx<'_, R, Atomic>) {
        (&self.guard, self.cx.reborrow())
    }
}

impl<R: Rank> fmt::Debug for Pinned<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pinned").finish_non_exhaustive()
    }
}
