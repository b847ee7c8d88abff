//! What a driver implements, and the proof that it must return.

use super::translation::{RegId, Translation};
use crate::ctx::{AtomicCallbackCx, CallbackCx};

use crate::addr::VpnRange;
use std::marker::PhantomData;

/// Invariant, generative brand of one callback.
type Brand<'i> = PhantomData<fn(&'i ()) -> &'i ()>;

/// Why a range is invalidated, with the names of Linux's `mmu_notifier_event`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// Unmapped, moved or replaced.
    Unmap,
    /// Pages are dropped or replaced, the mapping stays.
    Clear,
    /// The rights of the mapping change.
    ProtectionVma,
    /// The rights of pages change: a fork, a page to be written back.
    ProtectionPage,
    /// Soft-dirty tracking begins anew.
    SoftDirty,
    /// Pages move to a device's memory.
    Migrate,
    /// A device gets pages for itself.
    Exclusive,
}

/// One demand to drop references to a range. Linear: not `Clone`, consumed by a gate.
#[must_use = "pass it to the gate: `Gate::exclude`"]
#[derive(Debug)]
pub struct Invalidation<'i> {
    range: VpnRange,
    event: Event,
    reg: RegId,
    brand: Brand<'i>,
}

/// Proof that the driver's gate excluded the range of *this* invocation.
#[must_use = "the callback returns this"]
#[derive(Debug)]
pub struct Ack<'i> {
    _brand: Brand<'i>,
}

impl<'i> Invalidation<'i> {
    /// Pages to drop.
    #[inline]
    pub fn range(&self) -> VpnRange {
        self.range
    }
    /// Why.
    #[inline]
    pub fn event(&self) -> Event {
        self.event
    }
    #[inline]
    pub(super) fn reg(&self) -> RegId {
        self.reg
    }
    #[inline]
    pub(super) fn ack(self) -> Ack<'i> {
        Ack { _brand: self.brand }
    }
}

/// How far the first of two passes came: with the demand, or with beginning it.
#[must_use = "the range is not dropped before the answer says so"]
pub enum FirstPass<'i, F> {
    /// All is dropped.
    Done(Ack<'i>),
    /// Something was set going, and this waits for it.
    Deferred(F),
}

/// The second pass of a driver: waits for what its first pass set going, and acknowledges.
#[must_use = "the window waits for this"]
pub struct SecondPass<'s>(Second<'s>);

type Second<'s> = Box<dyn for<'a, 'i> FnOnce(CallbackCx<'a>, Invalidation<'i>) -> Ack<'i> + 's>;

impl<'i> Invalidation<'i> {
    /// Ends the first pass. `second` is called when the first pass of every driver is over, with the same demand again:
    /// the acknowledgement can come only from there.
    pub fn defer<'s>(
        self,
        second: impl for<'a, 'j> FnOnce(CallbackCx<'a>, Invalidation<'j>) -> Ack<'j> + 's,
    ) -> FirstPass<'i, SecondPass<'s>> {
        let _again = self;
        FirstPass::Deferred(SecondPass(Box::new(second)))
    }
}

impl SecondPass<'_> {
    pub(super) fn run<'i>(self, cx: CallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        (self.0)(cx, inv)
    }
}

impl std::fmt::Debug for SecondPass<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecondPass").finish_non_exhaustive()
    }
}

/// Runs one callback under a fresh brand; what is still owed.
#[inline]
pub(super) fn demand<F, E>(
    range: VpnRange,
    event: Event,
    reg: RegId,
    f: impl for<'i> FnOnce(Invalidation<'i>) -> Result<FirstPass<'i, F>, E>,
) -> Result<Option<F>, E> {
    let begun = f(Invalidation {
        range,
        event,
        reg,
        brand: PhantomData,
    })?;
    Ok(match begun {
        FirstPass::Done(_ack) => None,
        FirstPass::Deferred(finish) => Some(finish),
    })
}

/// The driver cannot finish without blocking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an external MMU would have to block")]
pub struct WouldBlock;

/// What an aging call does to the accessed state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AgeKind {
    /// Clears it and flushes what would hide the next access (`clear_flush_young`).
    ClearFlush,
    /// Clears it; a cached translation may hide the next access (`clear_young`).
    Clear,
    /// Looks only (`test_young`).
    Test,
}

/// An MMU outside the CPU that caches translations of an address space.
///
/// Callbacks come from any thread, several at once, with overlapping and nested ranges, and with ranges in which the
/// MMU has nothing. What a driver cannot get wrong is in the types: it must pass its gate to answer, it cannot sleep
/// where it must not, and it cannot re-enter the address space.
///
/// # Panics
///
/// A callback may panic; the panic goes on from the operation that called it. A window that one of them keeps from opening
/// changes nothing: it ends for those who agreed, and the operation leaves off, with what it had begun done or undone. A
/// panic at the end of a window comes when everything is done; the others are told the end first. What the driver itself is
/// left with is its own affair: one that panics when it is asked for everything, as an address space ends, keeps its entries,
/// and is caught when it looks at a frame that was given back.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an external MMU",
    label = "windows would not reach it",
    note = "implement `ExternalMmu`: its `invalidate_start` passes the gate and returns the `Ack` that it gets there"
)]
pub trait ExternalMmu: Send + Sync {
    /// Drops every reference into the range, and gives out none until the end; may block.
    fn invalidate_start<'i>(&self, cx: CallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i>;

    /// The same in two passes, for a driver that sets something going elsewhere and waits for it: the window calls this for
    /// every driver, and then every second pass, so that all wait at the same time (`invalidate_finish`).
    ///
    /// ```text
    /// fn invalidate_begin<'s, 'i>(&'s self, mut cx: .., inv: Invalidation<'i>) -> FirstPass<'i, SecondPass<'s>> {
    ///     // Under the gate: whoever has a permit posts its entry before this, or finds the window.
    ///     let flush = {
    ///         let _gate = self.gate.lock(&mut cx);
    ///         self.device.post(inv.range())
    ///     };
    ///     inv.defer(move |cx, inv| {
    ///         flush.wait();
    ///         self.gate.exclude(cx, inv, |_, _, _| ())
    ///     })
    /// }
    /// ```
    ///
    /// What is set going must be ordered behind the permits that are held at that moment, by the gate, as in the example: a
    /// fault that was admitted before the window began would otherwise tell the device of its entry behind the flush, and
    /// the device would keep it after the acknowledgement. And it must wait for nothing under the gate.
    ///
    /// The default is one pass. A driver that answered [`FirstPass::Deferred`] is told the end in any case, also when another
    /// driver's panic kept its second pass from running.
    fn invalidate_begin<'s, 'i>(
        &'s self,
        cx: CallbackCx<'_>,
        inv: Invalidation<'i>,
    ) -> FirstPass<'i, SecondPass<'s>> {
        FirstPass::Done(self.invalidate_start(cx, inv))
    }

    /// The same without blocking. The default is right for every driver that sleeps.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`]: nothing was dropped that the driver would have to be told the end of; it gets no end.
    fn try_invalidate_start<'i>(
        &self,
        cx: AtomicCallbackCx<'_>,
        inv: Invalidation<'i>,
    ) -> Result<Ack<'i>, WouldBlock> {
        let _unused = (cx, inv);
        Err(WouldBlock)
    }

    /// A window whose beginning was acknowledged has closed. Never blocks, so that a guard's `Drop` can call it.
    fn invalidate_end(&self, cx: AtomicCallbackCx<'_>, range: VpnRange) {
        let _unused = (cx, range);
    }

    /// Whether a page of the range was used through this MMU since the accessed state was last cleared.
    fn age(&self, cx: AtomicCallbackCx<'_>, range: VpnRange, kind: AgeKind) -> bool {
        let _unused = (cx, range, kind);
        false
    }

    /// What the MMU is called in reports.
    fn name(&self) -> &'static str {
        "external MMU"
    }

    /// Shows every translation that could be used right now, in tables and TLBs. Called by an [oracle](crate::oracle), on
    /// any thread, with any lock of the library held, from within calls that the driver itself makes too: hold no lock that
    /// this takes while you call a gate, a permit or the address space, or let go a gate. `false` if it could not look
    /// everywhere; a panic ends here, and is a finding. The default is that of a driver without any.
    fn translations(&self, visit: &mut dyn FnMut(Translation)) -> bool {
        let _unused = visit;
        true
    }

    /// [`translations`](Self::translations) of pages in `range`: what an oracle looks at for each window and each frame
    /// that goes. The default looks at all of them, which a driver with many should do better.
    fn translations_in(&self, range: VpnRange, visit: &mut dyn FnMut(Translation)) -> bool {
        self.translations(&mut |t| {
            if t.range().overlaps(range) {
                visit(t);
            }
        })
    }

    /// Windows that it has been told the beginning of and not the end, as it counts them itself. Zero while no window is
    /// open, which an oracle checks. The default is that of a driver that does not count.
    fn windows(&self) -> u64 {
        0
    }

    /// The address space ends, or the driver leaves: nothing of it may be used from here on. Comes exactly once, after
    /// everything was excluded.
    fn release(&self, cx: CallbackCx<'_>) {
        let _unused = cx;
    }
}
