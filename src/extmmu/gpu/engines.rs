//! The state under the gate: the TLBs of the engines, and the pages that the GPU has alone.

use crate::{
    addr::{Vpn, VpnRange},
    error::RangeFault,
    extmmu::tlb::{PageSize, Tlb},
    notifier::Cached,
};
use std::collections::{BTreeMap, BTreeSet};

/// The TLBs of a GPU, one of each engine.
#[derive(Debug)]
pub(super) struct Engines {
    tlbs: Vec<Tlb<Cached>>,
    /// Pages of memory that the GPU has alone. Each has an entry.
    pub(super) alone: BTreeSet<Vpn>,
    /// The faults of each page since it last migrated.
    pub(super) faults: BTreeMap<Vpn, u32>,
    /// Pages that were refused, for the mistake that remembers them.
    pub(super) refused: BTreeMap<Vpn, RangeFault>,
}

impl Engines {
    pub(super) fn new(engines: usize, entries: usize) -> Self {
        Self {
            tlbs: (0..engines).map(|_| Tlb::new(entries)).collect(),
            alone: BTreeSet::new(),
            faults: BTreeMap::new(),
            refused: BTreeMap::new(),
        }
    }
    /// Returns the translation that an engine has cached.
    pub(super) fn get(&self, engine: usize, at: Vpn) -> Option<Cached> {
        self.tlbs[engine].get(0, at.0).copied()
    }
    /// Enters a translation in the TLB of an engine.
    pub(super) fn enter(&mut self, engine: usize, cached: Cached) {
        let (first, size) = (cached.range().start(), PageSize::of(cached.range().pages()));
        let _evicted = self.tlbs[engine].insert(0, first.0, size, cached);
    }
    /// Returns the number of engines.
    pub(super) fn count(&self) -> usize {
        self.tlbs.len()
    }
    /// Flushes the pages of a range from all TLBs.
    pub(super) fn flush(&mut self, range: VpnRange) {
        self.flush_first(usize::MAX, range);
    }
    /// Flushes the pages of a range from the TLBs of the first engines.
    pub(super) fn flush_first(&mut self, engines: usize, range: VpnRange) {
        for tlb in self.tlbs.iter_mut().take(engines) {
            tlb.remove_in(0, range.start().0, range.end().0);
        }
    }
    /// Flushes entries of single pages.
    pub(super) fn flush_small(&mut self, range: VpnRange) {
        for tlb in &mut self.tlbs {
            tlb.retain(|_, cached| cached.range().pages() > 1 || !cached.range().overlaps(range));
        }
    }
    /// Calls `visit` with the translations in the TLBs that have a page in `range`.
    pub(super) fn for_each_in(&self, range: VpnRange, visit: &mut dyn FnMut(&Cached)) {
        for tlb in &self.tlbs {
            tlb.for_each_in(0, range.start().0, range.end().0, visit);
        }
    }
}
