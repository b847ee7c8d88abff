//! The loop of a miss for many pages: look-up, permit; again for the pieces that windows touched.
//!
//! ```text
//! range ticket -> resolve_range -> admit: Ok       -> the closure, with the gate held
//!                      ^                  Busy     -> wait until no window overlaps the piece --+
//!                      |                  Stale    -> at once: pieces that are current stay ----+
//!                      |                  Detached -> TranslateError::Detached                  |
//!                      +------------------------------------------------------------------------+
//! ```

use super::translate::{TranslateError, wait_to_retry};
use crate::{
    addr::VpnRange,
    ctx::{CallCx, Context, EnterFrom, Sleepable},
    mm::Mm,
    notifier::{FaultRequest, Gate, RangePermit, RangeTicket, Seated, ShadowStore},
};

impl<S: ShadowStore, T, C: Context> Gate<S, T, C> {
    /// Translates the pages of a range, and runs `establish` with the gate held and all of the
    /// translations valid at once (`hmm_range_fault` and the check of its sequence).
    ///
    /// While `establish` runs, no window over one of the pages is open. It runs once, or not at all
    /// if the call fails. A page that cannot be had cuts the range short: the permit is for the
    /// pages below it, and [`RangePermit::stopped`] has the error.
    ///
    /// Windows in the way are waited for as by [`translate`](Self::translate); only the 2-MiB
    /// pieces that they touched are looked up again.
    ///
    /// # Errors
    ///
    /// [`TranslateError::Range`]: the first page cannot be had, the driver did not subscribe to all
    /// of the pages, or the gate belongs to another address space. [`TranslateError::Detached`]:
    /// the driver was unregistered.
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::{Errno, driver::*, mm::{MmapArgs, Prot}};
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
    /// let at = mm.mmap(&mut cx, &MmapArgs::anonymous(8 * PAGE_SIZE))?;
    /// mm.mprotect(&mut cx, at + 6 * PAGE_SIZE, 2 * PAGE_SIZE, Prot::READ)?;
    /// let first = Vpn::containing(at);
    /// let range = VpnRange::try_new(first, first.plus(8))?;
    ///
    /// // Six pages can be written; the seventh stops the range.
    /// let (pages, stopped) =
    ///     device.0.translate_range(&mut cx, &mm, range, FaultRequest::Write, |permit| {
    ///         let outcome = (permit.range().pages(), permit.stopped());
    ///         drop(permit.establish(|page| page.range().start()));
    ///         outcome
    ///     })?;
    /// assert_eq!(pages, 6);
    /// assert_eq!(stopped.map(|fault| fault.errno()), Some(Errno::EPERM));
    /// # mm.exit(&mut cx);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn translate_range<V>(
        &self,
        cx: &mut CallCx<'_>,
        mm: &Mm,
        range: VpnRange,
        request: FaultRequest,
        establish: impl FnOnce(RangePermit<'_, S, T, C>) -> V,
    ) -> Result<V, TranslateError>
    where
        C: EnterFrom<Sleepable>,
    {
        self.translate_ticket(cx, mm, self.range_ticket(range, request), establish)
    }
    /// [`translate_range`](Self::translate_range) with a ticket of the caller's, as for requests
    /// that differ, or for huge pages.
    ///
    /// # Errors
    ///
    /// As [`translate_range`](Self::translate_range).
    pub fn translate_ticket<'g, V>(
        &'g self,
        cx: &mut CallCx<'_>,
        mm: &Mm,
        mut ticket: RangeTicket<'g, Self>,
        establish: impl FnOnce(RangePermit<'_, S, T, C>) -> V,
    ) -> Result<V, TranslateError>
    where
        C: EnterFrom<Sleepable>,
    {
        loop {
            let pending = mm.resolve_range(cx, ticket)?;
            let refused = match pending.admit(cx) {
                Ok(permit) => return Ok(establish(permit)),
                Err(refused) => refused,
            };
            let (why, pages) = (refused.reason(), refused.pages());
            wait_to_retry(self.seat(), why, pages, pages.start())?;
            ticket = refused.into_ticket();
        }
    }
}
