//! The miss: pages are looked up, pinned, and become a region.
//!
//! ```text
//! range ticket -> look-up -> pin -> admit: Ok -> the region is found, under the gate
//!      ^                                   Err -> the pins are given up; wait for the window --+
//!      +---------------------------------------------------------------------------------------+
//! ```
//!
//! The pins are of the pages that were looked up: no window was open over them from the stamp of
//! the look-up to the admission. A pin that copies a page opens a window itself, and the second
//! round finds the copy.

use super::{
    cache::RegCache,
    error::RegError,
    mistake::RegMistake,
    region::Region,
    regions::{Regions, TableGuard},
};
use crate::{
    addr::{PAGE_SIZE, Vpn, VpnRange},
    ctx::{Atomic, CallCx},
    mm::{HeldPages, Mm, PinKind},
    notifier::{Access, OrderedStore, RangePermit, Retry, Slot},
    sync::thread,
};
use std::sync::Arc;

type Permit<'p> = RangePermit<'p, OrderedStore<Vpn>, Regions, Atomic>;

impl RegCache {
    /// Registers pages, and returns the region with a user.
    ///
    /// A pinned cache registers for writing what can be written, whatever it is asked for, so that
    /// a later write needs no other region. It remembers that pages cannot be pinned: their region
    /// has no pins, and is found until a window takes it.
    pub(super) fn register(
        &self,
        cx: &mut CallCx<'_>,
        want: VpnRange,
        access: Access,
    ) -> Result<Arc<Region>, RegError> {
        let mm = self.mm.upgrade().ok_or(RegError::Gone)?;
        let grown = self.grown(cx, want);
        let pinned = self.config.pinned;
        let wish = if pinned { Access::Write } else { access };
        let ranges = [(grown != want).then_some(grown), pinned.then_some(want)];
        for range in ranges.into_iter().flatten() {
            match self.try_range(cx, &mm, (range, wish), pinned) {
                Err(RegError::Fault(_) | RegError::Pin(_)) => {}
                done => return done,
            }
        }
        self.try_range(cx, &mm, (want, access), false)
    }
    /// Returns the block around the pages, with the regions that it overlaps.
    fn grown(&self, cx: &mut CallCx<'_>, want: VpnRange) -> VpnRange {
        let block = self.config.block.max(1);
        let (first, end) = (want.start().0, want.end().0);
        let (mut first, mut end) = (first - first % block, end.next_multiple_of(block));
        let known = self.gate.lock(cx).state().overlapping(want);
        for region in known {
            first = first.min(region.range.start().0);
            end = end.max(region.range.end().0);
        }
        let grown = VpnRange::new(Vpn(first), Vpn(end));
        let grown = grown.and_then(|grown| grown.intersect(VpnRange::TASK));
        let fits = grown.filter(|grown| grown.pages() <= self.config.pages);
        fits.unwrap_or(want)
    }
    fn try_range(
        &self,
        cx: &mut CallCx<'_>,
        mm: &Mm,
        (range, access): (VpnRange, Access),
        pinned: bool,
    ) -> Result<Arc<Region>, RegError> {
        let mut pins = None;
        loop {
            let ticket = self.gate.range_ticket(range, access.into());
            let pending = mm.resolve_range(cx, ticket)?;
            if let Some(fault) = pending.stopped() {
                return Err(fault.into());
            }
            if pinned && !(pins.is_some() && self.made(RegMistake::UncheckedPins)) {
                pins = Some(pin(mm, cx, range)?);
            }
            let refused = match pending.admit(cx) {
                Ok(permit) => return Ok(self.enter(permit, access, pins)),
                Err(refused) => refused,
            };
            let (why, pages) = (refused.reason(), refused.pages());
            drop(refused);
            self.meter.retried();
            if self.made(RegMistake::LeaksOnFailure) {
                std::mem::forget(pins.take());
            }
            match why {
                Retry::Detached => return Err(RegError::Gone),
                Retry::Busy => self.gate.wait_idle(cx, pages),
                Retry::Stale => {}
            }
            thread::yield_now();
        }
    }
    /// Makes a region of pages that were looked up. Pins that are not needed are given up after
    /// the gate is unlocked.
    fn enter(
        &self,
        mut permit: Permit<'_>,
        access: Access,
        pins: Option<HeldPages>,
    ) -> Arc<Region> {
        let range = permit.range();
        let known = permit.state().hit(range, access);
        if let Some(known) = known {
            if !self.made(RegMistake::DoublePin) {
                drop(permit);
                return known;
            }
            std::mem::forget(known.take_pins());
            known.remove_user();
        }
        let may_write = |(_, slot): (_, Slot)| slot.translation().is_some_and(|t| t.is_writable());
        let writable = permit.slots().all(may_write);
        for old in permit.state().overlapping(range) {
            permit.state().remove(&old);
            permit.guard().forget_range(old.range, |_| ());
        }
        range.iter().for_each(|at| self.meter.faulted(at.into()));
        self.meter
            .pinned(pins.as_ref().map_or(0, |_| range.pages()));
        let mut gate = permit.establish(|page| page.range().start());
        let region = Arc::new(Region::new(range, writable, pins));
        gate.state().add(&region);
        self.make_room(&mut gate);
        region
    }
    /// Evicts regions that were not used for long, while there are too many. Those in use stay.
    fn make_room(&self, gate: &mut TableGuard<'_>) {
        let in_use = self.made(RegMistake::EvictsInUse);
        let has_pins = |region: &Region| region.with_pins(|_| ()).is_some();
        loop {
            let regions = gate.state();
            if regions.len() <= self.config.regions && regions.pages() <= self.config.pages {
                break;
            }
            if self.made(RegMistake::EvictsPinsOnly) {
                let oldest = regions.oldest(|region| !region.is_used() && has_pins(region));
                oldest.into_iter().for_each(|region| region.deregister());
                break;
            }
            let newest = regions.len() == 1;
            let oldest = regions.oldest(|region| !region.is_used() || (in_use && !newest));
            let Some(oldest) = oldest else { break };
            regions.evictions += 1;
            regions.remove(&oldest);
            gate.forget_range(oldest.range, |_| ());
            if in_use {
                oldest.deregister();
            }
            if self.made(RegMistake::LeaksOnEviction) {
                std::mem::forget(oldest.take_pins());
            }
        }
    }
}

fn pin(mm: &Mm, cx: &mut CallCx<'_>, range: VpnRange) -> Result<HeldPages, RegError> {
    let bytes = usize::try_from(range.pages() * PAGE_SIZE).expect("a region is in memory");
    let (at, access) = (range.start().addr(), Access::Write);
    Ok(mm.pin(cx, at, bytes, access, PinKind::LongTerm)?)
}
