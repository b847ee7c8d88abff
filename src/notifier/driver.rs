//! The trait that a driver implements, the demands that it gets, and the proof that it returns.
//!
//! Guarantee: a driver can return the [`Ack`] of a callback only by passing its gate in that
//! callback. [`Invalidation`] and `Ack` carry the brand `'i`, which is fresh for each call and
//! invariant, so an `Ack` of one call answers no other.

use super::{
    observer::name_of_type,
    reason::{Brand, Event, Spared, Terms},
    translation::{RegId, Translation},
};
use crate::{
    addr::VpnRange,
    ctx::{AtomicCallbackCx, CallbackCx},
    frame::{DeviceId, DeviceMemory},
};

use std::marker::PhantomData;

/// A demand to drop every reference to a range.
///
/// The value is linear: it cannot be cloned, and passing it to a gate consumes it.
#[must_use = "pass it to the gate: `Gate::exclude`"]
#[derive(Debug)]
pub struct Invalidation<'i> {
    terms: &'i Terms,
    reg: RegId,
    brand: Brand<'i>,
}

/// The proof that the driver's gate has excluded the range of one callback.
///
/// Only a gate makes one, of the demand of this very callback:
///
/// ```
/// use emmu::driver::*;
///
/// struct Device(Gate<OrderedStore<Vpn>, (), Atomic>);
///
/// impl SpinningMmu for Device {
///     fn invalidate<'i>(&self, cx: AtomicCallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
///         self.0.exclude_entries(cx, inv)
///     }
/// }
/// ```
///
/// The proof of one demand does not answer another, which the lifetime `'i` tells apart:
///
/// ```compile_fail
/// use emmu::driver::*;
///
/// type Table = Gate<OrderedStore<Vpn>, (), Atomic>;
///
/// fn answer<'i, 'o>(
///     gate: &Table,
///     cx: CallbackCx<'_>,
///     demand: Invalidation<'i>,
///     other: Invalidation<'o>,
/// ) -> Ack<'i> {
///     gate.exclude(cx, other, |(), _, _| ())
/// }
/// ```
#[must_use = "the callback returns this"]
#[derive(Debug)]
pub struct Ack<'i> {
    _brand: Brand<'i>,
}

impl<'i> Invalidation<'i> {
    /// Returns the pages to drop.
    #[inline]
    pub fn range(&self) -> VpnRange {
        self.terms.range()
    }
    /// Returns the reason of the invalidation.
    #[inline]
    pub fn event(&self) -> Event {
        self.terms.reason().event()
    }
    /// Returns the device memory for which the window is opened: of a migration to that device or
    /// from it, or of an exclusive access (`mmu_notifier_range::owner`).
    pub fn owner(&self) -> Option<DeviceId> {
        self.terms.reason().owner()
    }
    /// Returns the right to keep translations of frames of `memory` while the range is dropped
    /// ([`Gate::exclude_sparing`]), if the opener of the window has promised that no entry of such
    /// a frame changes. Only the owner of a migration gets it, and not when pages come home.
    ///
    /// [`Gate::exclude_sparing`]: super::Gate::exclude_sparing
    pub fn spare(&self, memory: &DeviceMemory) -> Option<Spared<'i>> {
        let spared = self
            .terms
            .reason()
            .spared()
            .filter(|id| *id == memory.id())?;
        Some(Spared::new(spared, self.brand))
    }
    #[inline]
    pub(super) fn terms(&self) -> &'i Terms {
        self.terms
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

/// The outcome of the first of two passes.
#[must_use = "the range is not dropped before the answer says so"]
pub enum FirstPass<'i, F> {
    /// Every reference to the range is dropped.
    Done(Ack<'i>),
    /// The first pass has started work elsewhere; the value waits for it.
    Deferred(F),
}

/// The second pass of a driver: waits for the work that the first pass started, and acknowledges.
#[must_use = "the window waits for this"]
pub struct SecondPass<'s>(Second<'s>);

type Second<'s> = Box<dyn for<'a, 'i> FnOnce(CallbackCx<'a>, Invalidation<'i>) -> Ack<'i> + 's>;

impl<'i> Invalidation<'i> {
    /// Ends the first pass and leaves the rest to `second`.
    ///
    /// The window calls `second` when the first pass of every driver is over, with an equal demand.
    /// The acknowledgement can come only from there.
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

/// Calls `f` with a demand under a fresh brand. Returns the second pass that the driver left.
#[inline]
pub(super) fn demand<F, E>(
    terms: &Terms,
    reg: RegId,
    f: impl for<'i> FnOnce(Invalidation<'i>) -> Result<FirstPass<'i, F>, E>,
) -> Result<Option<F>, E> {
    let begun = f(Invalidation {
        terms,
        reg,
        brand: PhantomData,
    })?;
    Ok(match begun {
        FirstPass::Done(_ack) => None,
        FirstPass::Deferred(finish) => Some(finish),
    })
}

/// The driver cannot drop the range without blocking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an external MMU would have to block")]
pub struct WouldBlock;

/// The effect of an aging call on the accessed state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AgeKind {
    /// Clears the accessed state and flushes the translations that would hide the next access
    /// (`clear_flush_young`).
    ClearFlush,
    /// Clears the accessed state; a cached translation may hide the next access (`clear_young`).
    Clear,
    /// Reads the accessed state and leaves it (`test_young`).
    Test,
}

/// An MMU outside of the CPU that caches translations of an address space.
///
/// Callbacks come from any thread, several at once, with ranges that overlap and nest, and with
/// ranges in which the MMU has no translation. The types enforce the protocol: a driver must pass
/// its gate to answer, it cannot sleep where it must not, and it cannot re-enter the address space.
///
/// A callback cannot call the address space: the operation that calls it has locks or pages of it.
/// Its token has too high a rank:
///
/// ```compile_fail,E0308
/// use emmu::driver::*;
///
/// fn in_callback(mm: &Mm, mut cx: CallbackCx<'_>) {
///     let _ = mm.munmap(&mut cx, 0x10000, PAGE_SIZE);
/// }
/// ```
///
/// # Panics
///
/// A callback may panic; the panic continues from the operation that opened the window. A panic
/// that keeps a window from opening changes nothing: the window ends for the drivers that
/// acknowledged it, and the operation stops with its begun steps done or undone
/// (docs/adr/0024-a-panic-does-or-undoes.md). A panic at the end of a window continues when the
/// operation is complete, and the other drivers are notified of the end first.
///
/// The library does not repair the driver's own state. A driver that panics when it is called for
/// everything, as an address space ends, keeps its entries; a later look at a frame that was given
/// back is caught.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an external MMU",
    label = "windows would not reach it",
    note = "implement `ExternalMmu`: its `invalidate_start` passes the gate and returns the `Ack` that it gets there"
)]
pub trait ExternalMmu: Send + Sync {
    /// Drops every reference to the range, and makes none until the window ends. May block.
    fn invalidate_start<'i>(&self, cx: CallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i>;

    /// Begins to drop the range; by default drops all of it, by
    /// [`invalidate_start`](Self::invalidate_start). A driver that starts work elsewhere and then
    /// waits for it (`invalidate_finish`) has its own.
    ///
    /// The window calls this for every driver, and then every second pass, so that all drivers wait
    /// at the same time.
    ///
    /// ```text
    /// fn invalidate_begin<'s, 'i>(
    ///     &'s self,
    ///     mut cx: ..,
    ///     inv: Invalidation<'i>,
    /// ) -> FirstPass<'i, SecondPass<'s>> {
    ///     // Under the gate: a permit posts its entry before this, or finds the window.
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
    /// The work must start under the gate, as in the example, so that it is ordered behind the
    /// permits that exist at that moment. Otherwise a fault that was admitted before the window
    /// began could tell the device of its entry behind the flush, and the device would keep the
    /// entry after the acknowledgement. The driver must not wait for anything under the gate.
    ///
    /// The default does it in one pass. A driver that returned [`FirstPass::Deferred`] is notified
    /// of the end of the window in any case, even if another driver's panic kept its second pass
    /// from running.
    fn invalidate_begin<'s, 'i>(
        &'s self,
        cx: CallbackCx<'_>,
        inv: Invalidation<'i>,
    ) -> FirstPass<'i, SecondPass<'s>> {
        FirstPass::Done(self.invalidate_start(cx, inv))
    }

    /// Drops every reference to the range without blocking. The default, which refuses, is right
    /// for every driver that sleeps.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`] if the driver would have to wait. It has then dropped nothing that needs an
    /// end, and is not notified of one.
    fn try_invalidate_start<'i>(
        &self,
        cx: AtomicCallbackCx<'_>,
        inv: Invalidation<'i>,
    ) -> Result<Ack<'i>, WouldBlock> {
        let _unused = (cx, inv);
        Err(WouldBlock)
    }

    /// Notes the end of a window that the driver acknowledged. Never blocks, so that the `Drop` of
    /// a guard can call it.
    fn invalidate_end(&self, cx: AtomicCallbackCx<'_>, range: VpnRange) {
        let _unused = (cx, range);
    }

    /// Returns true if a page of the range was used through this MMU since its accessed state was
    /// last cleared.
    fn age(&self, cx: AtomicCallbackCx<'_>, range: VpnRange, kind: AgeKind) -> bool {
        let _unused = (cx, range, kind);
        false
    }

    /// Returns the name of the MMU in reports. The default is the name of its type.
    fn name(&self) -> &'static str {
        name_of_type::<Self>()
    }

    /// Shows every translation that could be used at this moment, in tables and in TLBs. Returns
    /// false if the driver could not look everywhere.
    ///
    /// An [oracle](crate::oracle) calls this on any thread, with any lock of the library held, also
    /// from within calls that the driver itself makes. So a lock that this method takes must not be
    /// held while the driver calls a gate, a permit or the address space, or unlocks a gate. The
    /// gate itself is no such lock for [`Gate::audit`](super::Gate::audit) and
    /// [`Gate::audited_parts`](super::Gate::audited_parts). A panic ends here and is a finding. The
    /// default is that of a driver without translations.
    fn translations(&self, visit: &mut dyn FnMut(Translation)) -> bool {
        let _unused = visit;
        true
    }

    /// Shows the [`translations`](Self::translations) of pages in `range`, which an oracle asks for
    /// at each window and each frame that is given back. The default looks at all translations; a
    /// driver with many should do better.
    fn translations_in(&self, range: VpnRange, visit: &mut dyn FnMut(Translation)) -> bool {
        self.translations(&mut |t| {
            if t.range().overlaps(range) {
                visit(t);
            }
        })
    }

    /// Returns the number of windows whose beginning, but not whose end, the driver was notified
    /// of, by the driver's own count. An oracle checks that it is zero while no window is open. The
    /// default is that of a driver that does not count.
    fn windows(&self) -> u64 {
        0
    }

    /// Notes that the address space ends, or that the driver is unregistered: nothing of the
    /// address space may be used from here on. Called exactly once, after everything was excluded.
    fn release(&self, cx: CallbackCx<'_>) {
        let _unused = cx;
    }
}
