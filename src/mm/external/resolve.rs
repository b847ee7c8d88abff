//! The look-up of a page for an external MMU: from a ticket to a frame that only the driver's own
//! lock makes readable.
//!
//! A driver draws a ticket before it looks, so that every window over the page from then on makes
//! the ticket stale. `resolve` finds the frame and returns a `Pending`, from which the frame cannot
//! be read: admission checks the ticket under the driver's lock.

use crate::mm::{entry::pte::RawPte, fault::Patience, page_table::LeafAt, space::Mm};
use crate::{
    addr::{Pfn, Vpn, VpnRange},
    ctx::{Below, Context, Cx, Rank, Sleepable, rank},
    error::FaultError,
    notifier::{Access, Pending, Seated, Ticket},
    trace,
};

/// The translation of a page in the page table.
pub(in crate::mm) struct Found {
    pub(in crate::mm) range: VpnRange,
    pub(in crate::mm) pfn: Pfn,
    pub(in crate::mm) may_write: bool,
}

impl Mm {
    /// Makes the ticket's page present for its access, as a fault of the processor would, and
    /// returns its frame, not yet readable (`get_user_pages`, without keeping a reference).
    ///
    /// # Errors
    ///
    /// [`FaultError`], as for the access itself; also for a ticket of another address space, or of
    /// a driver that did not subscribe to the page.
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::{driver::*, mm::MmapArgs};
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
    /// // `Gate::translate` takes these steps, and repeats them while windows are in the way.
    /// let ticket = device.0.ticket(page, Access::Read);
    /// let pending = mm.resolve(&mut cx, ticket)?; // faults the page in
    /// let permit = pending.admit(&mut cx)?; // locks the gate and checks the ticket
    /// assert_eq!(permit.frame().read_u8(0), 0);
    /// drop(permit.establish(page));
    /// assert!(device.0.lock(&mut cx).lookup(&page).is_some());
    /// # mm.exit(&mut cx);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    // In line where it is called, as the admission that follows: what goes from one to the other
    // then needs no copy, for which a processor would have to wait.
    #[inline(always)]
    pub fn resolve<'g, G: Seated, R: Below<rank::Mmap>>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        ticket: Ticket<'g, G>,
    ) -> Result<Pending<'g, G>, FaultError> {
        self.check_ticket(&ticket)?;
        let (at, access) = (ticket.vpn(), ticket.access());
        let _look_up = trace::resolve(|| ticket.seat().name(), at.into(), access);
        match self.look_up(cx, &ticket) {
            Some(found) => Ok(self.fill(ticket, &found)),
            None => self.resolve_by_faults(cx, ticket),
        }
    }
    /// Faults the ticket's page in until a look-up finds it.
    #[cold]
    fn resolve_by_faults<'g, G: Seated, R: Below<rank::Mmap>>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        ticket: Ticket<'g, G>,
    ) -> Result<Pending<'g, G>, FaultError> {
        let (at, access) = (ticket.vpn(), ticket.access());
        let mut patience = Patience::default();
        loop {
            let faulted = self.fault_in_for_driver(cx, at, at.addr(), access);
            if let Err(why) = patience.allow_retry(faulted) {
                ticket.refused();
                return Err(why);
            }
            if let Some(found) = self.look_up(cx, &ticket) {
                return Ok(self.fill(ticket, &found));
            }
        }
    }
    /// Looks the ticket's page up without a fault, and without a lock but that of the leaf table
    /// for a huge translation: in an atomic context too
    /// (`get_user_pages_fast_only`, a walk from an interrupt). Returns `None` if the page is not
    /// present for the access, if a window over it is open that began before the driver was
    /// registered, or if the driver is being unregistered.
    ///
    /// # Errors
    ///
    /// [`FaultError::WrongAddressSpace`], [`FaultError::Unsubscribed`].
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::{driver::*, mm::MmapArgs};
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
    /// let ticket = device.0.ticket(page, Access::Read);
    /// assert!(mm.try_resolve(&mut cx, ticket)?.is_none(), "no fault");
    /// mm.store(&mut cx, at, 7)?;
    /// let ticket = device.0.ticket(page, Access::Read);
    /// assert!(mm.try_resolve(&mut cx, ticket)?.is_some());
    /// # mm.exit(&mut cx);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn try_resolve<'g, G: Seated, R: Below<rank::Ptl>, C: Context>(
        &self,
        cx: &mut Cx<'_, R, C>,
        ticket: Ticket<'g, G>,
    ) -> Result<Option<Pending<'g, G>>, FaultError> {
        self.check_ticket(&ticket)?;
        if ticket.is_early() {
            return Ok(None);
        }
        let found = self.look_up(cx, &ticket);
        Ok(found.map(|found| self.fill(ticket, &found)))
    }
    /// Fills a ticket with what `found` makes of the page's entry, without a fault.
    pub(in crate::mm) fn resolve_as<'g, G: Seated, R: Rank, C: Context>(
        &self,
        cx: &mut Cx<'_, R, C>,
        ticket: Ticket<'g, G>,
        found: impl FnOnce(RawPte) -> Option<Found>,
    ) -> Result<Option<Pending<'g, G>>, FaultError> {
        self.check_ticket(&ticket)?;
        if ticket.is_early() {
            return Ok(None);
        }
        let view = self.table.view(cx);
        let leaf = view.leaf(ticket.vpn());
        let found = leaf.and_then(|leaf| found(leaf.peek(ticket.vpn())));
        Ok(found.map(|found| self.fill(ticket, &found)))
    }
    fn check_ticket<G: Seated>(&self, ticket: &Ticket<'_, G>) -> Result<(), FaultError> {
        if !ticket.is_of(&self.notifiers) {
            return Err(FaultError::WrongAddressSpace);
        }
        if !ticket.is_covered() {
            return Err(FaultError::Unsubscribed(ticket.vpn().addr()));
        }
        Ok(())
    }
    #[inline(always)]
    fn fill<'g, G: Seated>(&self, ticket: Ticket<'g, G>, found: &Found) -> Pending<'g, G> {
        // Read after the entry: if the frame was retired in between, the ticket is stale, since a
        // window has closed over the page.
        let generation = self.machine().mem().generation(found.pfn);
        ticket
            .fill(found.range, found.pfn, generation, found.may_write)
            .stamped()
    }
    /// Returns the translation of the ticket's page if it allows the access.
    fn look_up<G: Seated, R: Rank, C: Context>(
        &self,
        cx: &mut Cx<'_, R, C>,
        ticket: &Ticket<'_, G>,
    ) -> Option<Found> {
        let at = ticket.vpn();
        let allowed = |pte: RawPte| pte.allows(ticket.access()) && !self.is_secret(pte);
        let view = self.table.view(cx);
        let leaf = view.leaf(at)?;
        // Before the mark: the fill of a huge page sets the mark before the entries.
        let found = small(leaf, at, allowed);
        if found.is_some() && ticket.allows_huge(VpnRange::block_of(at)) && leaf.is_huge() {
            return huge(leaf, at, allowed).or(found);
        }
        found
    }
    /// Returns true for a page of secret memory, told by its frame: no lock is held here.
    fn is_secret(&self, pte: RawPte) -> bool {
        let mem = self.machine().mem();
        pte.counted().is_some_and(|pfn| mem.flags(pfn).is_secret())
    }
    /// Returns the frame that the page table maps at `at` now, and whether it may be written. For
    /// an oracle, which has no token.
    pub(crate) fn translation_of(&self, at: Vpn) -> Option<(Pfn, bool)> {
        self.with_translations(|translation_of| translation_of(at))
    }
    /// Runs `f` with a function that answers as [`translation_of`](Self::translation_of) does, for
    /// many pages under one pin.
    pub(crate) fn with_translations<T>(
        &self,
        f: impl FnOnce(&dyn Fn(Vpn) -> Option<(Pfn, bool)>) -> T,
    ) -> T {
        let local = self.machine.epoch().register();
        let guard = local.pin();
        let pin = self.table.pin(&guard);
        f(&|at| {
            if at.0 >= crate::addr::TASK_PAGES {
                return None;
            }
            let pte = self.table.leaf(at, pin)?.peek(at);
            match pte.allows(Access::Read) {
                true => Some((pte.pfn(), pte.may_write())),
                // Its device may have it.
                false => pte.on_device(),
            }
        })
    }
}

fn small(leaf: LeafAt<'_>, at: Vpn, allowed: impl Fn(RawPte) -> bool) -> Option<Found> {
    let pte = leaf.peek(at);
    allowed(pte).then(|| Found {
        range: VpnRange::single(at),
        pfn: pte.pfn(),
        may_write: pte.may_write(),
    })
}

fn huge(leaf: LeafAt<'_>, at: Vpn, allowed: impl Fn(RawPte) -> bool) -> Option<Found> {
    let range = VpnRange::block_of(at);
    huge_entry(leaf, range.start(), allowed).map(|pte| Found {
        range,
        pfn: pte.pfn(),
        may_write: pte.may_write(),
    })
}

/// Returns the first entry of a huge page, read under the lock of its leaf: mark and entry must
/// belong together.
pub(super) fn huge_entry(
    leaf: LeafAt<'_>,
    first: Vpn,
    allowed: impl Fn(RawPte) -> bool,
) -> Option<RawPte> {
    let locked = leaf.lock()?;
    let pte = locked.get(first);
    (locked.is_huge() && allowed(pte)).then_some(pte)
}
