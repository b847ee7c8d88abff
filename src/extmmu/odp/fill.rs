//! Faults and prefetches: pages are looked up together, and enter list and table under one lock
//! (`ib_umem_odp_map_dma_and_lock`).

use super::{
    mistake::OdpMistake,
    region::{Region, Table},
};
use crate::{
    addr::VpnRange,
    ctx::CallCx,
    driver::TranslateError,
    error::FaultError,
    notifier::{Cached, FaultRequest, Slot},
};

/// Advice on a part of a region (`IB_UVERBS_ADVISE_MR_ADVICE_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OdpAdvice {
    /// Pages that can be read are wanted.
    Prefetch,
    /// Pages that can be written are wanted.
    PrefetchWrite,
    /// Pages that are present are wanted; nothing is faulted in.
    PrefetchNoFault,
}

impl OdpAdvice {
    pub(super) fn request(self) -> FaultRequest {
        match self {
            Self::Prefetch => FaultRequest::Read,
            Self::PrefetchWrite => FaultRequest::Write,
            Self::PrefetchNoFault => FaultRequest::Snapshot,
        }
    }
}

impl Region {
    /// Brings the pages of a range of the region into the table, as many as can be had from its
    /// first page on, and returns their number.
    ///
    /// # Errors
    ///
    /// [`TranslateError`]: the first page cannot be had, or the region has ended.
    pub(super) fn fill(
        &self,
        cx: &mut CallCx<'_>,
        pages: VpnRange,
        request: FaultRequest,
    ) -> Result<u64, TranslateError> {
        let first = pages.start();
        let gone = TranslateError::Detached { at: first };
        let mm = self.parts.mm.upgrade().ok_or(gone)?;
        if self.parts.made(OdpMistake::KeepsRefusals)
            && self.lock(cx).state().refused.contains(&first)
        {
            return Err(FaultError::NotMapped(first.addr()).into());
        }
        if self.parts.made(OdpMistake::NeverUpgrades) && self.lock(cx).state().get(first).is_some()
        {
            return Err(FaultError::Denied(first.addr()).into());
        }
        let mut ticket = self.gate.range_ticket(pages, request);
        if self.parts.config.huge {
            ticket = ticket.allow_huge();
        }
        let late = self.parts.made(OdpMistake::FillsLate);
        let filled = self.gate.translate_ticket(cx, &mm, ticket, |permit| {
            let mapped = permit
                .slots()
                .filter(|(_, slot)| matches!(slot, Slot::Mapped(_)));
            let entries: Vec<Cached> = mapped
                .filter_map(|(at, _)| permit.cached(at.start()))
                .collect();
            let mut guard = permit.establish(|found| found.range().start());
            if !late {
                enter(guard.state(), &entries);
            }
            entries
        });
        if filled.is_err() && self.parts.made(OdpMistake::KeepsRefusals) {
            self.lock(cx).state().refused.insert(first);
        }
        let entries = filled?;
        if late {
            enter(self.lock(cx).state(), &entries);
        }
        for entry in &entries {
            self.parts.meter.faulted(entry.range());
        }
        Ok(entries.iter().map(|entry| entry.range().pages()).sum())
    }
}

/// Enters translations in the adapter's table.
fn enter(table: &mut Table, entries: &[Cached]) {
    table.do_posted();
    entries.iter().for_each(|entry| table.put(*entry));
}
