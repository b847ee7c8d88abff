//! The monitor: windows take regions out of the cache. They deregister none.

use super::{cache::RegCache, mistake::RegMistake, regions::Regions};
use crate::{
    addr::VpnRange,
    ctx::{AtomicCallbackCx, CallbackCx},
    driver::SpinningMmu,
    notifier::{Ack, Invalidation, ShadowEntry, ShadowStore, Translation},
};

impl RegCache {
    /// Takes the regions with a page in `range` out of the cache.
    fn invalidate_regions(&self, regions: &mut Regions, range: VpnRange) {
        for region in regions.overlapping(range) {
            if !self.made(RegMistake::StartsOnly) || range.contains(region.range.start()) {
                regions.remove(&region);
            }
        }
        regions.refused.retain(|at, _| !range.contains(*at));
    }
    /// Returns true if windows reach the regions as they begin.
    fn listens(&self) -> bool {
        !self.made(RegMistake::DeafMonitor) && !self.made(RegMistake::LateMonitor)
    }
}

impl SpinningMmu for RegCache {
    fn invalidate<'i>(&self, mut cx: AtomicCallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        self.meter.begin(inv.range());
        let mut taken_again = Vec::new();
        let ack = self.gate.exclude_with(&mut cx, inv, |regions, gone, _| {
            if self.made(RegMistake::InvalidatesTwice) {
                taken_again.extend(regions.doomed(gone.range()).cloned());
            }
            let pages = gone.entries().iter().map(ShadowEntry::range);
            self.meter.dropped_all(pages);
            if self.listens() {
                self.invalidate_regions(regions, gone.range());
            }
        });
        taken_again.iter().for_each(|region| region.deregister());
        ack
    }
    fn invalidate_end(&self, mut cx: AtomicCallbackCx<'_>, range: VpnRange) {
        if self.made(RegMistake::LateMonitor) {
            let mut gate = self.gate.lock(&mut cx);
            self.invalidate_regions(gate.state(), range);
        }
        self.meter.end(range);
    }
    /// Deregisters all regions that are not in use: the process has ended, or the cache left it.
    fn release(&self, mut cx: CallbackCx<'_>) {
        let gone = self.gate.lock(&mut cx).state().idle_doomed();
        gone.iter().for_each(|region| region.deregister());
    }
    fn name(&self) -> &'static str {
        "regcache"
    }
    fn translations(&self, visit: &mut dyn FnMut(Translation)) -> bool {
        self.gate.audit(visit)
    }
    fn translations_in(&self, range: VpnRange, visit: &mut dyn FnMut(Translation)) -> bool {
        let mut show = |e: &ShadowEntry| visit(e.translation());
        self.gate
            .audited(|store| store.for_each_in(range, &mut show))
    }
}
