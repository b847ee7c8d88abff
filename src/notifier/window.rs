//! The protocol of an invalidation window: its place on the board, and the drivers that
//! acknowledged it.
//!
//! Guarantee: an [`OpenWindow`] exists only when every driver of its range has acknowledged.
//! Exactly the drivers that acknowledged are notified of the end, also if another driver refuses or
//! panics.
//!
//! The order is the protocol: the board is written before the chain is read, and the page table
//! changes only when the value exists. `notifier` has the whole protocol.

use super::{
    board::Board,
    callees::Callees,
    chain::Chain,
    driver::{Ack, ExternalMmu, FirstPass, Invalidation, SecondPass, WouldBlock, demand},
    driver_entry::DriverEntry,
    notifiers::Notifiers,
    observer::WindowObserver,
    reason::{Reason, Terms},
};
use crate::{
    addr::VpnRange,
    ctx::{Atomic, Below, Context, Cx, Sleepable, rank},
    sync::{Despite, panicking, sequential},
    trace::{self, InSpan, Pass},
};
use std::{convert::Infallible, marker::PhantomData, ops::Deref};

/// The way in which a window of this context calls a driver.
pub trait WindowContext: Context {
    /// The reason for which a driver may refuse.
    type Refusal: std::fmt::Debug;
    /// The second pass that a driver may leave.
    type Deferred<'s>;
    /// Calls the driver, which drops the range by passing its gate ([`Gate::exclude`]): the only
    /// way to the proof. Or it only begins to, and leaves a second pass.
    ///
    /// [`Gate::exclude`]: super::Gate::exclude
    #[doc(hidden)]
    fn call<'s, 'i>(
        ext: &'s dyn ExternalMmu,
        cx: Cx<'_, rank::Callback, Self>,
        inv: Invalidation<'i>,
    ) -> Result<FirstPass<'i, Self::Deferred<'s>>, Self::Refusal>;
    /// Runs the second pass of a driver.
    #[doc(hidden)]
    fn finish<'i>(
        deferred: Self::Deferred<'_>,
        cx: Cx<'_, rank::Callback, Self>,
        inv: Invalidation<'i>,
    ) -> Ack<'i>;
}

impl WindowContext for Sleepable {
    type Refusal = Infallible;
    type Deferred<'s> = SecondPass<'s>;
    fn call<'s, 'i>(
        ext: &'s dyn ExternalMmu,
        cx: Cx<'_, rank::Callback, Self>,
        inv: Invalidation<'i>,
    ) -> Result<FirstPass<'i, SecondPass<'s>>, Infallible> {
        Ok(ext.invalidate_begin(cx, inv))
    }
    fn finish<'i>(
        deferred: SecondPass<'_>,
        cx: Cx<'_, rank::Callback, Self>,
        inv: Invalidation<'i>,
    ) -> Ack<'i> {
        deferred.run(cx, inv)
    }
}

/// A driver that must not wait leaves no second pass.
impl WindowContext for Atomic {
    type Refusal = WouldBlock;
    type Deferred<'s> = Infallible;
    fn call<'i>(
        ext: &dyn ExternalMmu,
        cx: Cx<'_, rank::Callback, Self>,
        inv: Invalidation<'i>,
    ) -> Result<FirstPass<'i, Infallible>, WouldBlock> {
        ext.try_invalidate_start(cx, inv).map(FirstPass::Done)
    }
    fn finish<'i>(
        deferred: Infallible,
        _: Cx<'_, rank::Callback, Self>,
        _: Invalidation<'i>,
    ) -> Ack<'i> {
        match deferred {}
    }
}

/// A window that every driver of its range has acknowledged. `Drop` ends it, for exactly those
/// drivers.
///
/// In an address space where no driver was ever registered, it is one load and a null pointer. To
/// keep it so, the state of a window lies elsewhere (in the slot of `grace`), and nothing on the
/// fast path takes the address of the window.
#[must_use]
pub(crate) struct OpenWindow<'w, C: Context> {
    live: Option<Callees<'w>>,
    range: VpnRange,
    cx: Cx<'w, rank::Window, C>,
    _span: InSpan,
}

/// A window that is being announced. It is ended if a driver refuses or panics.
struct Opening<'a, 'w, C: Context> {
    live: Option<Callees<'w>>,
    range: VpnRange,
    cx: Cx<'a, rank::Window, C>,
}

impl<'w, C: WindowContext> OpenWindow<'w, C> {
    /// Opens a window. One load, in an address space where no driver was ever registered.
    #[inline(always)]
    pub(crate) fn open<R: Below<rank::Window>>(
        notifiers: &'w Notifiers,
        cx: Cx<'w, R, C>,
        range: VpnRange,
        reason: impl Into<Reason>,
    ) -> Result<Self, C::Refusal> {
        Self::open_at(notifiers, cx.into_descended(), range, reason.into())
    }
    /// Opens a window inside of this one: drivers must expect that windows nest.
    pub(crate) fn nested<'n>(
        &'n mut self,
        notifiers: &'n Notifiers,
        range: VpnRange,
        reason: impl Into<Reason>,
    ) -> Result<OpenWindow<'n, C>, C::Refusal> {
        OpenWindow::open_at(notifiers, self.cx.reborrow(), range, reason.into())
    }
    #[inline(always)]
    fn open_at(
        notifiers: &'w Notifiers,
        mut cx: Cx<'w, rank::Window, C>,
        range: VpnRange,
        reason: Reason,
    ) -> Result<Self, C::Refusal> {
        let span = trace::window(range, reason.event());
        let live = match notifiers.chain() {
            None => None,
            Some(chain) => Opening::announce(chain, cx.reborrow(), range, reason)?,
        };
        Ok(Self {
            live,
            range,
            cx,
            _span: span,
        })
    }
}

impl<'a, 'w, C: WindowContext> Opening<'a, 'w, C> {
    #[inline(never)]
    fn announce(
        chain: &'w Chain,
        cx: Cx<'a, rank::Window, C>,
        range: VpnRange,
        reason: Reason,
    ) -> Result<Option<Callees<'w>>, C::Refusal> {
        let mut opening = Self {
            live: None,
            range,
            cx,
        };
        opening.call_all(chain, reason)?;
        Ok(opening.live.take())
    }
    /// Writes the window on the board, and calls each driver of its range, which drops it: in
    /// `invalidate_begin`, or by its default in `invalidate_start`, or `SpinningMmu::invalidate`.
    fn call_all(&mut self, chain: &'w Chain, reason: Reason) -> Result<(), C::Refusal> {
        let terms = Terms::new(self.range, reason);
        // The board before the chain: a driver that registers later finds the window on the board.
        chain.board.begin_in(self.range, terms.buckets());
        sequential();
        let id = chain.board.next_window_id();
        let callees = chain.callees(&mut self.cx, self.range, (id, terms.buckets()));
        let callees = self.live.insert(callees);
        // First passes of all drivers, and then the second passes: so all drivers wait at the same
        // time.
        let mut deferred: Vec<(&DriverEntry, C::Deferred<'_>)> = Vec::new();
        let watched = chain.board.observer.get().is_some();
        for entry in callees.entries() {
            if watched {
                chain
                    .board
                    .observe(|w| w.calling(id, self.range, entry.ext.name()));
            }
            let cx = self.cx.descend();
            let _call = trace::callback(|| entry.ext.name(), self.range, Pass::Start);
            let left = demand(&terms, entry.reg, |inv| C::call(&*entry.ext, cx, inv))?;
            callees.agrees();
            if let Some(left) = left {
                deferred.push((entry, left));
            }
        }
        match deferred.is_empty() {
            true => drop(deferred),
            false => Self::finish_all((chain, id, &terms), &mut self.cx, deferred),
        }
        callees.opened();
        chain
            .board
            .observe(|w| w.opened(id, self.range, reason.spared()));
        Ok(())
    }
}

impl<C: WindowContext> Opening<'_, '_, C> {
    /// Runs the second passes of a window.
    #[inline(never)]
    fn finish_all(
        (chain, id, terms): (&Chain, u64, &Terms),
        cx: &mut Cx<'_, rank::Window, C>,
        deferred: Vec<(&DriverEntry, C::Deferred<'_>)>,
    ) {
        let range = terms.range();
        for (entry, left) in deferred {
            let calling = |w: &dyn WindowObserver| w.calling(id, range, entry.ext.name());
            chain.board.observe(calling);
            let cx = cx.descend();
            let _call = trace::callback(|| entry.ext.name(), range, Pass::Finish);
            let Ok(None::<Infallible>) = demand(terms, entry.reg, |inv| {
                Ok::<_, Infallible>(FirstPass::Done(C::finish(left, cx, inv)))
            });
        }
    }
}

/// Takes the window from the board, and notifies the drivers that acknowledged it.
#[inline(never)]
fn end<C: Context>(mut callees: Callees<'_>, mut cx: Cx<'_, rank::Window, C>, range: VpnRange) {
    let (id, open) = callees.state();
    if open {
        callees.board().observe(|w| w.closing(range));
    }
    callees.leave_board(range);
    callees.close();
    let _closed = ReportClosed(callees.board(), id);
    let mut ends = EndNotifications {
        rest: callees.to_notify(),
        notify: |entry: &DriverEntry| {
            let _call = trace::callback(|| entry.ext.name(), range, Pass::End);
            entry.ext.invalidate_end(cx.descend(), range);
        },
    };
    if !panicking() {
        ends.for_each_left(|notify, entry| notify(entry));
    }
}

/// Reports the end of the window to the observer when every driver has been notified.
struct ReportClosed<'a>(&'a Board, u64);

impl Drop for ReportClosed<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.observe(|w| w.closed(self.1));
    }
}

/// The notifications of an end. If a driver panics, or a panic ends the window, the rest of the
/// drivers are notified when this is dropped.
struct EndNotifications<I: Notified, J: Notified, F: FnMut(&DriverEntry)> {
    rest: (I, J),
    notify: F,
}

/// Drivers that are to be notified.
trait Notified: Iterator<Item: Deref<Target = DriverEntry>> {}
impl<I: Iterator<Item: Deref<Target = DriverEntry>>> Notified for I {}

impl<I: Notified, J: Notified, F: FnMut(&DriverEntry)> EndNotifications<I, J, F> {
    /// Takes the drivers that are left, one after the other.
    #[inline]
    fn for_each_left(&mut self, mut take: impl FnMut(&mut F, &DriverEntry)) {
        let Self { rest, notify } = self;
        rest.0.by_ref().for_each(|entry| take(notify, &entry));
        rest.1.by_ref().for_each(|entry| take(notify, &entry));
    }
}

impl<I: Notified, J: Notified, F: FnMut(&DriverEntry)> Drop for EndNotifications<I, J, F> {
    #[inline]
    fn drop(&mut self) {
        if panicking() {
            self.notify_despite_panics();
        }
    }
}

impl<I: Notified, J: Notified, F: FnMut(&DriverEntry)> EndNotifications<I, J, F> {
    #[cold]
    #[inline(never)]
    fn notify_despite_panics(&mut self) {
        let mut despite = Despite::default();
        self.for_each_left(|notify, entry| {
            despite.call(|| notify(entry));
        });
        despite.resume();
    }
}

impl<C: Context> OpenWindow<'_, C> {
    /// Returns the range that is covered.
    pub(crate) fn range(&self) -> VpnRange {
        self.range
    }
    /// Returns the range that is covered, and the token for work inside of the window.
    #[inline]
    pub(crate) fn split(&mut self) -> (Coverage<'_>, Cx<'_, rank::Window, C>) {
        let coverage = Coverage {
            range: self.range,
            window: PhantomData,
        };
        (coverage, self.cx.reborrow())
    }
}

impl<C: Context> Drop for OpenWindow<'_, C> {
    #[inline(always)]
    fn drop(&mut self) {
        if let Some(callees) = self.live.take() {
            end(callees, self.cx.reborrow(), self.range);
        }
    }
}

impl<C: Context> Drop for Opening<'_, '_, C> {
    fn drop(&mut self) {
        if let Some(callees) = self.live.take() {
            end(callees, self.cx.reborrow(), self.range);
        }
    }
}

/// The range of a window that is known to be open for `'w`.
#[derive(Clone, Copy)]
pub(crate) struct Coverage<'w> {
    range: VpnRange,
    window: PhantomData<&'w ()>,
}

impl Coverage<'_> {
    pub(crate) fn range(self) -> VpnRange {
        self.range
    }
}
