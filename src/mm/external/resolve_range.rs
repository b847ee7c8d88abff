//! The look-up of many pages for an external MMU (`hmm_range_fault`).
//!
//! A range is looked up in pieces of one 2-MiB block. The stamp of a piece is drawn before the mmap
//! lock is taken for it; under the lock, VMAs and entries are read together. If a page is not as
//! its request wants it, the lock is left, the pages are faulted in, and the piece is read anew
//! with a new stamp: the fault may have opened windows over the piece itself.

use super::resolve::huge_entry;
use crate::mm::{
    entry::{flags::VmFlags, pte::RawPte},
    fault::Patience,
    page_table::LeafAt,
    space::Mm,
    vma::Vma,
};
use crate::{
    addr::{Pfn, Vpn, VpnRange},
    ctx::{Below, Cx, Rank, Sleepable, rank},
    error::{FaultError, RangeFault},
    notifier::{Access, FaultRequest, RangePending, RangeTicket, Seated, Slot},
    trace,
};

/// The outcome of reading a piece.
enum Reading {
    /// Every page is as its request wants it.
    Done(Vec<Slot>),
    /// These pages have to be faulted in first.
    Needs(Vec<(Vpn, Access)>),
}

impl Mm {
    /// Looks the pages of a range up for a driver, and faults in those that were requested
    /// (`hmm_range_fault`). The pages cannot be read before they are admitted.
    ///
    /// Pages that were not requested are looked up as they are. An error at a later page cuts the
    /// range short there ([`RangePending::stopped`]); the pages below it are good.
    ///
    /// # Errors
    ///
    /// [`RangeFault`], for the first page: nothing that was requested of it can be had. Its errno
    /// is that of `hmm_range_fault`: `EPERM` for a write to memory that may only be read, else
    /// `EFAULT`. Also for a ticket of another address space, or of a driver that did not subscribe
    /// to all of the pages.
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
    /// let at = mm.mmap(&mut cx, &MmapArgs::anonymous(4 * PAGE_SIZE))?;
    /// let first = Vpn::containing(at);
    /// let range = VpnRange::try_new(first, first.plus(4))?;
    /// mm.store(&mut cx, at, 7)?;
    ///
    /// // The pages as they are: one is present.
    /// let ticket = device.0.range_ticket(range, FaultRequest::Snapshot);
    /// let permit = mm.resolve_range(&mut cx, ticket)?.admit(&mut cx).map_err(|e| e.reason())?;
    /// assert!(matches!(permit.slot(first), Some(Slot::Mapped(_))));
    /// assert_eq!(permit.slot(first.plus(1)), Some(Slot::Missing));
    /// drop(permit);
    ///
    /// // All of them, to read; the last one to write.
    /// let ticket = device.0.range_ticket(range, FaultRequest::Read);
    /// let ticket = ticket.request(first.plus(3).into(), FaultRequest::Write);
    /// let permit = mm.resolve_range(&mut cx, ticket)?.admit(&mut cx).map_err(|e| e.reason())?;
    /// drop(permit.establish(|page| page.range().start()));
    /// assert_eq!(device.0.lock(&mut cx).lookup(&first).map(|frame| frame.read_u8(0)), Some(7));
    /// assert!(device.0.lock(&mut cx).lookup_mut(&first.plus(3)).is_some());
    /// # mm.exit(&mut cx);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn resolve_range<'g, G: Seated, R: Below<rank::Mmap>>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        mut ticket: RangeTicket<'g, G>,
    ) -> Result<RangePending<'g, G>, RangeFault> {
        self.check_range_ticket(&ticket)?;
        let _look_up = trace::resolve(|| ticket.seat().name(), ticket.range(), "range");
        while let Some(part) = ticket.next_piece() {
            let snapshot = ticket.snapshot(part);
            match self.read_piece(cx, &ticket, part) {
                Ok(Reading::Done(slots)) => ticket.put(snapshot, part, slots),
                Ok(Reading::Needs(needs)) => {
                    drop(snapshot);
                    if let Err(fault) = self.fault_in_pages(cx, &needs) {
                        ticket.stop_at(fault)?;
                    }
                }
                Err(fault) => {
                    drop(snapshot);
                    ticket.stop_at(fault)?;
                }
            }
        }
        Ok(RangePending::new(ticket))
    }
    fn check_range_ticket<G: Seated>(&self, ticket: &RangeTicket<'_, G>) -> Result<(), RangeFault> {
        let range = ticket.range();
        let at = range.start();
        let refused = |why| RangeFault {
            at,
            why,
            read_only: false,
        };
        if !ticket.is_of(&self.notifiers) {
            return Err(refused(FaultError::WrongAddressSpace));
        }
        if !ticket.is_covered(range) {
            return Err(refused(FaultError::Unsubscribed(at.addr())));
        }
        Ok(())
    }
    /// Faults in pages that are not as their requests want them. A page that an earlier fault
    /// brought along, as part of a huge page, needs none.
    fn fault_in_pages<R: Below<rank::Mmap>>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        needs: &[(Vpn, Access)],
    ) -> Result<(), RangeFault> {
        for &(at, access) in needs {
            let mut patience = Patience::default();
            while !self.is_present_for(cx, at, access) {
                let step = self.fault_in_for_driver(cx, at, at.addr(), access);
                patience.allow_retry(step).map_err(|why| RangeFault {
                    at,
                    why,
                    read_only: false,
                })?;
            }
        }
        Ok(())
    }
    /// Reads VMAs and entries of a piece under the mmap lock.
    fn read_piece<G: Seated, R: Below<rank::Mmap>>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        ticket: &RangeTicket<'_, G>,
        part: VpnRange,
    ) -> Result<Reading, RangeFault> {
        let (read, _) = self.with_fault_scope(cx, part, |scope| {
            let layout = scope.layout;
            let view = self.table.view(&mut scope.lease.cx);
            let leaf = view.leaf(part.start());
            let mut vma = layout.vmas.get(part.start());
            if let Some(slot) = self.huge_piece(ticket, part, vma, leaf) {
                return Ok(Reading::Done(vec![slot]));
            }
            let (mut slots, mut needs) = (Vec::new(), Vec::new());
            for at in part.iter() {
                if vma.is_none_or(|vma| vma.end() <= at) {
                    vma = layout.vmas.get(at);
                }
                let pte = leaf.map_or(RawPte::NONE, |leaf| leaf.peek(at));
                let own = self.own_page(ticket, pte);
                match read_page(at, ticket.request_of(at), vma, (pte, own)) {
                    Ok(PageRead::Present) => slots.push(self.slot(ticket, at.into(), pte, own)),
                    Ok(PageRead::Absent(slot)) => slots.push(slot),
                    Ok(PageRead::Needs(access)) => needs.push((at, access)),
                    // The pages below come first: they are faulted in, and the error met again.
                    Err(_) if !needs.is_empty() => break,
                    Err(fault) => return Err(fault),
                }
            }
            Ok(if needs.is_empty() {
                Reading::Done(slots)
            } else {
                Reading::Needs(needs)
            })
        });
        read
    }
    /// Returns the slot of the huge page that has all of the piece, if the ticket accepts it and it
    /// serves every request.
    fn huge_piece<G: Seated>(
        &self,
        ticket: &RangeTicket<'_, G>,
        part: VpnRange,
        vma: Option<&Vma>,
        leaf: Option<LeafAt<'_>>,
    ) -> Option<Slot> {
        let (vma, leaf) = (vma?, leaf.filter(LeafAt::is_huge)?);
        let block = VpnRange::block_of(part.start());
        if !ticket.allows_huge() || !ticket.is_covered(block) || !vma.range().covers(part) {
            return None;
        }
        let request = part.iter().map(|at| ticket.request_of(at)).max()?;
        let serves = |pte| {
            let read = read_page(part.start(), request, Some(vma), (pte, None));
            matches!(read, Ok(PageRead::Present))
        };
        let pte = huge_entry(leaf, block.start(), serves)?;
        Some(self.slot(ticket, block, pte, None))
    }
    /// Returns the slot of pages that are mapped from the frame of `pte` on, or of the page `own`
    /// of the driver's own memory.
    fn slot<G: Seated>(
        &self,
        ticket: &RangeTicket<'_, G>,
        range: VpnRange,
        pte: RawPte,
        own: Option<OwnPage>,
    ) -> Slot {
        let (pfn, writable) = own.unwrap_or_else(|| (pte.pfn(), pte.may_write()));
        // Read after the entry, as for one page.
        let generation = self.machine().mem().generation(pfn);
        ticket.mapped(range, pfn, generation, writable)
    }
    /// Returns the frame of a page that lies in the driver's own memory beyond the processors'
    /// reach, and whether it may be written there. A page that a device has alone is none,
    /// wherever it lies.
    fn own_page<G: Seated>(&self, ticket: &RangeTicket<'_, G>, pte: RawPte) -> Option<OwnPage> {
        let mem = self.machine().mem();
        let own = ticket.own()?;
        let here = |&pfn: &Pfn| mem.device_of(pfn) == Some(own);
        pte.device_private().filter(here)?;
        pte.on_device()
    }
    /// Returns true if the page is present for the access.
    fn is_present_for<R: Rank>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        at: Vpn,
        access: Access,
    ) -> bool {
        let view = self.table.view(cx);
        view.leaf(at)
            .is_some_and(|leaf| leaf.peek(at).allows(access))
    }
}

/// The frame of a page in a driver's own memory, and whether it may be written.
type OwnPage = (Pfn, bool);

/// One page, as it was read.
enum PageRead {
    /// The entry serves the request.
    Present,
    /// The page is not present, and was not requested.
    Absent(Slot),
    /// The page has to be faulted in for this access.
    Needs(Access),
}

/// Reads one page of a range (`hmm_vma_walk_test`, `hmm_vma_walk_hole`, `hmm_vma_handle_pte`).
///
/// The VMA decides first: an entry that outlived a right of its VMA does not count.
fn read_page(
    at: Vpn,
    request: FaultRequest,
    vma: Option<&Vma>,
    (pte, own): (RawPte, Option<OwnPage>),
) -> Result<PageRead, RangeFault> {
    let refused = |why, read_only| RangeFault { at, why, read_only };
    let readable = match vma.filter(|vma| vma.range().contains(at)) {
        None => Err(FaultError::NotMapped(at.addr())),
        Some(vma) if vma.is_secret() => Err(FaultError::Secret(at.addr())),
        Some(vma) if !vma.flags.contains(VmFlags::READ) => Err(FaultError::Denied(at.addr())),
        Some(vma) => Ok(vma),
    };
    let wanted = request > FaultRequest::Snapshot;
    let vma = match readable {
        Ok(vma) => vma,
        Err(why) if wanted => return Err(refused(why, false)),
        Err(_) => return Ok(PageRead::Absent(Slot::Inaccessible)),
    };
    let access = match request {
        FaultRequest::Snapshot | FaultRequest::Read => Access::Read,
        FaultRequest::Write => Access::Write,
    };
    let there = own.is_some_and(|(_, write)| write || access == Access::Read);
    if pte.allows(access) || there {
        return Ok(PageRead::Present);
    }
    if !wanted {
        return Ok(PageRead::Absent(Slot::Missing));
    }
    if !vma.allows(access) {
        return Err(refused(FaultError::Denied(at.addr()), true));
    }
    Ok(PageRead::Needs(access))
}
