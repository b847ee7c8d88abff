//! Faults: a batch of pages under one range ticket.
//!
//! ```text
//! range ticket -> look-up -> admit: Ok  -> entries, under the gate, TLBs flushed of older ones
//!      ^                            Err -> wait; the pieces that are current stay --+
//!      +----------------------------------------------------------------------------+
//! ```

use super::{
    engines::Engines,
    error::GpuError,
    gpu::{BulkCommit, Gpu, Permit},
    mistake::GpuMistake,
    table::PageTable,
};
use crate::{
    addr::{Vpn, VpnRange},
    ctx::{Atomic, CallCx},
    error::{ByteRange, RangeFault},
    mm::Mm,
    notifier::{
        Access, Cached, FaultRequest, Gate, RangePending, RangeTicket, Retry, Slot, Translation,
    },
    sync::thread,
};

type Ticket<'g> = RangeTicket<'g, Gate<PageTable, Engines, Atomic>>;

impl Gpu {
    /// Maps a page for an access, and its neighbours as they are.
    pub(super) fn fault(
        &self,
        cx: &mut CallCx<'_>,
        (at, access): (Vpn, Access),
        engine: usize,
    ) -> Result<(), GpuError> {
        let mm = self.mm.upgrade().ok_or(GpuError::Gone)?;
        let mut gate = self.gate.lock(cx);
        if let Some(why) = gate.state().refused.get(&at) {
            return Err((*why).into());
        }
        drop(gate);
        self.move_if_hot(cx, &mm, at);
        let vouched = self.vouched(cx, &mm, at);
        let ticket = self.ticket(self.batch_of(at), FaultRequest::Snapshot);
        let ticket = ticket.request(at.into(), access.into());
        let mapped = self.map(cx, &mm, ticket, BulkCommit::All);
        if let Err(GpuError::Fault(why)) = mapped
            && self.made(GpuMistake::KeepsRefusals)
        {
            self.gate.lock(cx).state().refused.insert(why.at, why);
        }
        mapped?;
        if let Some(vouched) = vouched {
            self.gate.lock(cx).state().enter(engine, vouched);
        }
        Ok(())
    }
    /// Maps the pages of the bytes `[addr, addr + len)`, faulting in those that are not present.
    /// Returns the number of pages that were mapped: all, or those below one that cannot be had.
    ///
    /// # Errors
    ///
    /// [`GpuError::Range`], [`GpuError::Gone`]; [`GpuError::Fault`] if the first page cannot be
    /// had.
    pub fn prefetch(
        &self,
        cx: &mut CallCx<'_>,
        (addr, len): (u64, u64),
        access: Access,
    ) -> Result<u64, GpuError> {
        let mm = self.mm.upgrade().ok_or(GpuError::Gone)?;
        let range = pages_of(addr, len)?;
        let mut done = 0;
        while let Some(rest) = VpnRange::new(range.start().plus(done), range.end()) {
            let ticket = self.ticket(rest, access.into());
            match self.map(cx, &mm, ticket, self.config.commit) {
                Ok((pages, stopped)) => {
                    done += pages;
                    if stopped.is_some() {
                        break;
                    }
                }
                Err(GpuError::Fault(_)) if done > 0 => break,
                Err(why) => return Err(why),
            }
        }
        Ok(done)
    }
    /// Returns the block of pages that a fault looks up.
    fn batch_of(&self, at: Vpn) -> VpnRange {
        let batch = self.config.batch;
        let first = Vpn(at.0 - at.0 % batch);
        let block = VpnRange::new(first, first.plus(batch));
        let block = block.and_then(|block| block.intersect(VpnRange::TASK));
        block
            .filter(|block| block.contains(at))
            .unwrap_or(at.into())
    }
    fn ticket(&self, range: VpnRange, request: FaultRequest) -> Ticket<'_> {
        let mut ticket = self.gate.range_ticket(range, request);
        if self.config.huge {
            ticket = ticket.allow_huge();
        }
        match &self.board {
            Some(board) => ticket.allow_private(&board.memory),
            None => ticket,
        }
    }
    /// Looks pages up and maps them. Returns their number, and the error of the page behind them.
    fn map(
        &self,
        cx: &mut CallCx<'_>,
        mm: &Mm,
        mut ticket: Ticket<'_>,
        commit: BulkCommit,
    ) -> Result<(u64, Option<RangeFault>), GpuError> {
        let snapshot = ticket.request_of(ticket.range().start()) == FaultRequest::Snapshot;
        loop {
            let pending = mm.resolve_range(cx, ticket)?;
            // The page at fault is the one that cannot be had: its neighbours are not requested.
            if let Some(fault) = pending.stopped().filter(|_| snapshot) {
                return Err(fault.into());
            }
            let admit = match commit {
                BulkCommit::All => RangePending::admit,
                BulkCommit::Prefix => RangePending::admit_prefix,
            };
            let refused = match admit(pending, cx) {
                Ok(permit) => {
                    let mapped = (permit.range().pages(), permit.stopped());
                    self.enter(permit);
                    return Ok(mapped);
                }
                Err(refused) => refused,
            };
            self.meter.retried();
            match refused.reason() {
                Retry::Detached => return Err(GpuError::Gone),
                Retry::Busy => self.gate.wait_idle(cx, refused.pages()),
                Retry::Stale => {}
            }
            thread::yield_now();
            ticket = refused.into_ticket();
        }
    }
    /// Makes entries of the pages of a permit. Those that they replace, also of the other size,
    /// leave the TLBs: a TLB may know one to be dirty, and the new entry is clean.
    fn enter(&self, mut permit: Permit<'_>) {
        let found: Vec<Translation> = permit
            .slots()
            .filter_map(|(_, slot): (_, Slot)| slot.translation().copied())
            .collect();
        for page in &found {
            let range = page.range();
            let guard = permit.guard();
            let keeps = self.made(GpuMistake::ReplacesDirty) && range.pages() == 1;
            if !keeps && guard.store().has(range) {
                guard.forget_range(range, |engines| engines.flush(range));
            }
            self.meter.faulted(range);
        }
        drop(permit.establish(|page| page.range().start()));
    }
    /// Looks a neighbour up and trusts it blindly, for the mistake.
    fn vouched(&self, cx: &mut CallCx<'_>, mm: &Mm, at: Vpn) -> Option<Cached> {
        let wrong = self.made(GpuMistake::BatchVouched);
        let next = Some(at.plus(1)).filter(|_| wrong)?;
        let pending = mm.resolve(cx, self.gate.ticket(next, Access::Read));
        pending.ok().and_then(|pending| pending.vouch().ok())
    }
}

/// Returns the pages of the bytes `[addr, addr + len)`.
pub(super) fn pages_of(addr: u64, len: u64) -> Result<VpnRange, GpuError> {
    let bytes = ByteRange { addr, len };
    bytes.pages().ok_or(GpuError::Range(bytes))
}
