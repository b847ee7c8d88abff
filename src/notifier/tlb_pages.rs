//! The pages of a [`TlbGate`](super::TlbGate) under its lock, and copies for TLBs behind it.
//!
//! No type can follow a copy into hardware. The device removes its copies in its flush; a use of
//! one that it forgot panics once the frame has gone, and an [oracle](crate::oracle) finds it where
//! it lies.

#[cfg(feature = "testkit")]
use super::test_hook::Moment;
use super::{
    outcome::Access,
    secondary_tlb::{TlbSeat, Walked},
    translation::{RegId, Translation},
};
use crate::{
    addr::{Vpn, VpnRange},
    frame::{FrameView, FrameViewMut},
};
use std::collections::BTreeMap;

/// A page of a [`TlbGate`](super::TlbGate), copied for a TLB behind it: that of a device with an
/// address translation cache (ATS).
///
/// The device removes it in [`SecondaryTlb::flush`](super::SecondaryTlb::flush), after the gate has
/// removed its own. A copy gives no access by itself: [`TlbPages::view`] does, under the lock of
/// the gate, so that a flush ends after the accesses that it overtakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlbEntry {
    found: Translation,
    reg: RegId,
}

impl TlbEntry {
    /// Returns the page, the frame and the rights.
    pub fn translation(&self) -> Translation {
        self.found
    }
    /// Returns the page.
    pub fn page(&self) -> Vpn {
        self.found.range.start()
    }
    /// Returns true if the page may be written.
    pub fn is_writable(&self) -> bool {
        self.found.writable
    }
}

/// The pages of a [`TlbGate`](super::TlbGate), locked.
#[derive(Debug)]
pub struct TlbPages<'l> {
    pages: &'l mut BTreeMap<Vpn, Walked>,
    seat: &'l TlbSeat,
}

impl<'l> TlbPages<'l> {
    pub(super) fn new(pages: &'l mut BTreeMap<Vpn, Walked>, seat: &'l TlbSeat) -> Self {
        Self { pages, seat }
    }
    /// Returns a copy of a page; `None` if it is not cached, and once nothing is given out.
    pub fn get(&self, at: Vpn) -> Option<TlbEntry> {
        let page = self.seat.cached(self.pages, at)?;
        Some(TlbEntry {
            found: self.seat.translation(at, page),
            reg: self.seat.reg,
        })
    }
    /// Returns the frame that a copy leads to; `None` if it came from another registration, and
    /// once the registration has ended.
    pub fn view(&self, entry: &TlbEntry) -> Option<FrameView<'_>> {
        let found = self.own(entry)?;
        self.follows(entry, Access::Read);
        Some(self.seat.mem.view(found.pfn, found.generation))
    }
    /// Returns the frame that a copy leads to, for writing; also `None` if it may only be read.
    pub fn view_mut(&mut self, entry: &TlbEntry) -> Option<FrameViewMut<'_>> {
        let found = self.own(entry).filter(|found| found.writable)?;
        self.follows(entry, Access::Write);
        Some(self.seat.mem.view_mut(found.pfn, found.generation))
    }
    /// Calls the hook of tests.
    fn follows(&self, entry: &TlbEntry, access: Access) {
        #[cfg(feature = "testkit")]
        self.seat
            .list
            .reached(Moment::Following(entry.page(), access));
        let _without_tests = (entry, access);
    }
    fn own(&self, entry: &TlbEntry) -> Option<Translation> {
        let own = entry.reg == self.seat.reg && !self.seat.phase.is_shut();
        own.then_some(entry.found)
    }
    /// Removes the lowest page, for a TLB that is full.
    pub fn remove_first(&mut self) {
        let _gone = self.pages.pop_first();
    }
    /// Returns the number of pages.
    pub fn len(&self) -> usize {
        self.pages.len()
    }
    /// Returns true if no page is cached.
    pub fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }
}

impl TlbSeat {
    /// Returns a page of the locked TLB, unless that may be stale.
    pub(super) fn cached<'t>(
        &self,
        pages: &'t BTreeMap<Vpn, Walked>,
        at: Vpn,
    ) -> Option<&'t Walked> {
        pages.get(&at).filter(|_| !self.phase.is_shut())
    }
    /// Returns a page that this registration has read as a translation.
    pub(super) fn translation(&self, at: Vpn, page: &Walked) -> Translation {
        Translation {
            range: VpnRange::single(at),
            pfn: page.pfn,
            generation: page.generation,
            writable: page.writable,
            tag: self.reg.tag(),
        }
    }
}
