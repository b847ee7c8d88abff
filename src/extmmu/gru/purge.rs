//! The callbacks of the driver: a window purges the TLBs of its range, and cancels the misses
//! there.

use super::{
    asid::effective,
    chip::Chip,
    space::{GruMistake, GruSpace},
};
use crate::{
    addr::{Vpn, VpnRange},
    ctx::{AtomicCallbackCx, CallbackCx},
    driver::SpinningMmu,
    extmmu::tlb::Tlb,
    notifier::{Ack, Cached, Invalidation, Translation},
    sync::Ordering,
};
use std::ops::RangeInclusive;

/// The most pages that one purge instruction can name; 1024 stands for all.
const MOST: u64 = 1023;
/// The cycles of a purge, and of each page of it.
const PURGE: u64 = 2000;
const PER_PAGE: u64 = 4;

impl GruSpace {
    /// Purges the range from every GRU (`gru_flush_tlb_range`).
    fn purge(&self, range: VpnRange) {
        let mut trackers = self.trackers.lock();
        for (gru, tracker) in self.grus.iter().zip(trackers.iter_mut()) {
            if tracker.asid == 0 {
                continue;
            }
            // No context comes or goes meanwhile: contexts are loaded and unloaded with the
            // trackers locked.
            if tracker.loaded > 0 {
                let handle = gru.handles.take();
                let mut chip = gru.lock();
                let before = chip.stats.purge_cycles;
                let gone = chip.purge(tracker.asid, range, !self.made(GruMistake::NoDisarm));
                chip.stats.local_purges += u64::from(handle.is_local);
                if let Some(cycles) = handle.waited {
                    chip.stats.handle_wait_cycles += cycles;
                    self.meter.waited();
                }
                let took = chip.stats.purge_cycles - before;
                drop(chip);
                handle.done(took);
                self.meter.acknowledged(1);
                gone.iter().for_each(|pages| self.meter.dropped(*pages));
            } else if !self.made(GruMistake::NoLazyPurge) {
                // No instruction runs before the context is loaded, and then it gets another
                // identifier.
                tracker.asid = 0;
                gru.lock().stats.lazy_purges += 1;
            }
        }
    }
    fn start<'i>(&self, mut cx: AtomicCallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        // Active before the purge: a drop-in that comes after the purge finds the window active.
        if !self.made(GruMistake::LateActive) {
            self.active.fetch_add(1, Ordering::SeqCst);
        }
        self.meter.begin(inv.range());
        match self.mistake {
            Some(GruMistake::NoPurge | GruMistake::LatePurge) => {}
            Some(GruMistake::ShortPurge) => {
                let short = VpnRange::new(inv.range().start(), Vpn(inv.range().end().0 - 1));
                short.into_iter().for_each(|range| self.purge(range));
            }
            _ => self.purge(inv.range()),
        }
        if self.made(GruMistake::EarlyEnd) {
            self.count_out();
        }
        let ack = self.gate.exclude_with(&mut cx, inv, |(), _, _| ());
        if self.made(GruMistake::LateActive) {
            self.active.fetch_add(1, Ordering::SeqCst);
        }
        ack
    }
}

impl GruSpace {
    /// Runs `look` on each TLB, with the identifiers under which its entries are usable now.
    fn usable(&self, mut look: impl FnMut(&Tlb<Cached>, RangeInclusive<u32>)) {
        let trackers = self.trackers.lock().clone();
        for (gru, tracker) in self.grus.iter().zip(trackers) {
            let chip = gru.lock();
            // An address space that is not loaded and of an earlier generation returns with another
            // identifier.
            let current = tracker.loaded > 0 || tracker.generation == chip.asids.generation();
            if tracker.asid != 0 && current {
                let asids = tracker.asid..=effective(tracker.asid, u64::MAX);
                look(&chip.tlb, asids);
            }
        }
    }
}

impl Chip {
    /// Removes the entries of the range for an address space, and cancels its misses there. Returns
    /// the pages of the entries.
    fn purge(&mut self, asid: u32, range: VpnRange, disarm: bool) -> Vec<VpnRange> {
        let pages = range.pages();
        let all = pages > MOST;
        self.stats.purges += 1;
        self.stats.whole_purges += u64::from(all);
        self.stats.purge_cycles += PURGE + PER_PAGE * pages.min(MOST + 1);
        let mut gone = Vec::new();
        let asids = asid..=effective(asid, u64::MAX);
        self.tlb.retain(|of, cached| {
            let hit = asids.contains(&of) && (all || cached.range().overlaps(range));
            gone.extend(hit.then(|| cached.range()));
            !hit
        });
        for loaded in self.slots.iter_mut().flatten().filter(|l| l.asid == asid) {
            if disarm {
                loaded
                    .armed
                    .retain(|miss| !(all || miss.pages.overlaps(range)));
            }
        }
        gone
    }
}

impl SpinningMmu for GruSpace {
    /// Purging spins, so no window is refused.
    fn invalidate<'i>(&self, cx: AtomicCallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        self.start(cx, inv)
    }
    fn invalidate_end(&self, cx: AtomicCallbackCx<'_>, range: VpnRange) {
        let _unused = cx;
        if self.made(GruMistake::LatePurge) {
            self.purge(range);
        }
        self.meter.end(range);
        if !matches!(
            self.mistake,
            Some(GruMistake::EarlyEnd | GruMistake::LostEnd)
        ) {
            self.count_out();
        }
    }
    fn release(&self, cx: CallbackCx<'_>) {
        let _unused = cx;
        // A drop-in that was on its way when everything was excluded either comes before this, and
        // the purge removes it, or finds the mark.
        self.released.0.store(true, Ordering::Release);
        self.purge(VpnRange::ALL);
    }
    fn name(&self) -> &'static str {
        "GRU"
    }
    fn windows(&self) -> u64 {
        self.active()
    }
    /// Shows the usable entries: those under the identifier that the address space has now.
    fn translations(&self, visit: &mut dyn FnMut(Translation)) -> bool {
        self.usable(|tlb, asids| {
            let mine = tlb.iter().filter(|(asid, _)| asids.contains(asid));
            mine.for_each(|(_, cached)| visit(cached.translation()));
        });
        true
    }
    fn translations_in(&self, range: VpnRange, visit: &mut dyn FnMut(Translation)) -> bool {
        self.usable(|tlb, asids| {
            for asid in asids {
                let (first, end) = (range.start().0, range.end().0);
                tlb.for_each_in(asid, first, end, &mut |cached| visit(cached.translation()));
            }
        });
        true
    }
}
