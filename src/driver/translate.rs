//! The whole loop of a miss: ticket, look-up, permit; again for as long as windows are in the way.
//!
//! The loop must draw a new ticket for each look-up, hold no lock across the look-up, give up when
//! the driver has left its chain, and wait when a window is open. Written by hand in its natural
//! form, `match pending.admit(cx)` with a wait in the arm of [`Retry::Busy`], it does not compile:
//! the permit in the other arm borrows the token to the end of the `match`. Here the permit goes to
//! a closure that returns nothing borrowed, so the borrow ends with the call.
//!
//! ```text
//! ticket -> resolve -> admit: Ok       -> the closure, with the gate held
//!   ^                         Busy     -> wait until no window overlaps the pages --+
//!   |                         Stale    -> the window has closed: at once -----------+
//!   |                         Detached -> TranslateError::Detached                  |
//!   +-------------------------------------------------------------------------------+
//! ```

use crate::{
    addr::{Vpn, VpnRange},
    ctx::{CallCx, Context, EnterFrom, Sleepable},
    error::{Errno, FaultError, RangeFault},
    mm::Mm,
    notifier::{Access, Admits, Gate, Gates, Permit, PermitOf, Retry, Seat, ShadowStore, Ticket},
    sync::thread,
};
use thiserror::Error;

/// A translation was not made: another attempt would fail as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TranslateError {
    /// The address space refuses the access, as it refuses a load or store of the process.
    #[error(transparent)]
    Fault(#[from] FaultError),
    /// The address space refuses the first page of a range.
    #[error(transparent)]
    Range(#[from] RangeFault),
    /// The driver has left its chain.
    #[error("{} is not translated: the driver is no longer registered", VpnRange::single(*.at))]
    Detached {
        /// The page that was asked for.
        at: Vpn,
    },
}

impl TranslateError {
    /// The errno that fits: of a fault its own, `ENODEV` after the driver has left.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Fault(why) => why.errno(),
            Self::Range(why) => why.errno(),
            Self::Detached { .. } => Errno::ENODEV,
        }
    }
}

impl<S: ShadowStore, T, C: Context> Gate<S, T, C> {
    /// Translates a page for an access, and runs `establish` with the gate held and the translation
    /// valid.
    ///
    /// While `establish` runs, no window over the page is open, and none opens before the permit,
    /// or the guard that comes of it, is dropped. It runs once, or not at all if the call fails.
    /// Most drivers end it with [`Permit::establish`]; a driver without a store enters
    /// [`Permit::cached`] in the TLB that is the gate's [state](Permit::state), before it returns:
    /// later, a window may have passed. It must not take another gate, nor wait for anything that
    /// waits for a window.
    ///
    /// Windows in the way are waited for: the call sleeps while one is open over the page, and
    /// looks the page up again when one has closed since the look-up. A driver that subscribed to a
    /// range waits for the windows over all of it.
    ///
    /// The caller holds no lock that a callback of the driver takes: the look-up may fault, and so
    /// open windows itself.
    ///
    /// The permit cannot leave the closure:
    ///
    /// ```compile_fail
    /// use emmu::driver::*;
    ///
    /// fn keep(gate: &Gate<OrderedStore<Vpn>, (), Atomic>, cx: &mut CallCx<'_>, mm: &Mm) {
    ///     let permit = gate.translate(cx, mm, Vpn(16), Access::Read, |permit| permit);
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// [`TranslateError::Fault`]: the access is refused, as each one is after the address space has
    /// ended; the page lies outside of the range that the driver subscribed to; or the gate belongs
    /// to another address space. [`TranslateError::Detached`]: the driver was unregistered.
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::{Errno, driver::*, mm::MmapArgs};
    /// use std::sync::Arc;
    /// # struct Device(Gate<OrderedStore<Vpn>, (), Atomic>);
    /// # impl SpinningMmu for Device {
    /// #     fn invalidate<'i>(&self, cx: AtomicCallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
    /// #         self.0.exclude_entries(cx, inv)
    /// #     }
    /// # }
    /// # let machine = emmu::Machine::new(Default::default());
    /// # let mut thread = machine.enter()?;
    /// # let mut cx = thread.cx();
    /// # let mm = emmu::Mm::new(&machine);
    /// # let new = |seat| Arc::new(Device(Gate::new(seat, OrderedStore::default(), ())));
    /// # let (device, _registration) = mm.register(&mut cx, new);
    ///
    /// let at = mm.mmap(&mut cx, &MmapArgs::anonymous(PAGE_SIZE))?;
    /// let page = Vpn::containing(at);
    /// let establish = |permit: Permit<'_, _, _, _>| drop(permit.establish(page));
    /// device.0.translate(&mut cx, &mm, page, Access::Write, establish)?;
    /// if let Some(mut frame) = device.0.lock(&mut cx).lookup_mut(&page) {
    ///     frame.write(0, b"by the device");
    /// }
    /// assert_eq!(mm.load(&mut cx, at)?, b'b');
    ///
    /// let refused = device.0.translate(&mut cx, &mm, Vpn(0), Access::Read, |_| ());
    /// assert_eq!(refused.unwrap_err().errno(), Errno::EFAULT);
    /// # mm.exit(&mut cx);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn translate<V>(
        &self,
        cx: &mut CallCx<'_>,
        mm: &Mm,
        at: Vpn,
        access: Access,
        establish: impl FnOnce(Permit<'_, S, T, C>) -> V,
    ) -> Result<V, TranslateError>
    where
        C: EnterFrom<Sleepable>,
    {
        self.translate_with(cx, mm, |gate| gate.ticket(at, access), establish)
    }
    /// [`translate`](Self::translate) with a ticket that `draw` draws for each look-up, as for a
    /// huge page: `|gate| gate.ticket(at, access).allow_huge()`.
    ///
    /// # Errors
    ///
    /// As [`translate`](Self::translate).
    pub fn translate_with<V>(
        &self,
        cx: &mut CallCx<'_>,
        mm: &Mm,
        draw: impl FnMut(&Self) -> Ticket<'_, Self>,
        establish: impl FnOnce(Permit<'_, S, T, C>) -> V,
    ) -> Result<V, TranslateError>
    where
        C: EnterFrom<Sleepable>,
    {
        translate_at(self, cx, mm, draw, establish)
    }
}

impl<S: ShadowStore, T, C: Context> Gates<S, T, C> {
    /// Translates a page for an access, and runs `establish` with the page's gate held:
    /// [`Gate::translate`], with the same guarantees and errors.
    ///
    /// # Errors
    ///
    /// As [`Gate::translate`].
    pub fn translate<V>(
        &self,
        cx: &mut CallCx<'_>,
        mm: &Mm,
        at: Vpn,
        access: Access,
        establish: impl FnOnce(Permit<'_, S, T, C>) -> V,
    ) -> Result<V, TranslateError>
    where
        C: EnterFrom<Sleepable>,
    {
        self.translate_with(cx, mm, |gates| gates.ticket(at, access), establish)
    }
    /// [`translate`](Self::translate) with a ticket that `draw` draws for each look-up.
    ///
    /// # Errors
    ///
    /// As [`Gate::translate`].
    pub fn translate_with<V>(
        &self,
        cx: &mut CallCx<'_>,
        mm: &Mm,
        draw: impl FnMut(&Self) -> Ticket<'_, Self>,
        establish: impl FnOnce(Permit<'_, S, T, C>) -> V,
    ) -> Result<V, TranslateError>
    where
        C: EnterFrom<Sleepable>,
    {
        translate_at(self, cx, mm, draw, establish)
    }
}

/// The loop, for one gate and for several.
fn translate_at<G: Admits, V>(
    gate: &G,
    cx: &mut CallCx<'_>,
    mm: &Mm,
    mut draw: impl FnMut(&G) -> Ticket<'_, G>,
    establish: impl FnOnce(PermitOf<'_, G>) -> V,
) -> Result<V, TranslateError>
where
    G::Context: EnterFrom<Sleepable>,
{
    loop {
        let ticket = draw(gate);
        let at = ticket.vpn();
        let pending = mm.resolve(cx, ticket)?;
        let range = pending.range();
        let why = match pending.admit(cx) {
            Ok(permit) => return Ok(establish(permit)),
            Err(why) => why,
        };
        wait_to_retry(gate.seat(), why, range, at)?;
    }
}

/// Waits until pages that were refused may be looked up again; `at` is the page of an error.
pub(super) fn wait_to_retry(
    seat: &Seat,
    why: Retry,
    pages: VpnRange,
    at: Vpn,
) -> Result<(), TranslateError> {
    match why {
        Retry::Detached => return Err(TranslateError::Detached { at }),
        Retry::Busy => seat.wait_idle(pages),
        Retry::Stale => {}
    }
    // A driver that is not on the chain yet is refused without a window to wait for.
    thread::yield_now();
    Ok(())
}
