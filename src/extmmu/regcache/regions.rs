//! The regions of a cache, found by page, and those that wait for their deregistration.

use super::region::Region;
use crate::{
    addr::{Vpn, VpnRange},
    ctx::Atomic,
    error::RangeFault,
    notifier::{Access, Gate, GateGuard, OrderedStore},
    sync::Ordering,
};
use std::{collections::BTreeMap, sync::Arc};

/// The entries of the adapter, and the regions that they are of.
pub(super) type Table = Gate<OrderedStore<Vpn>, Regions, Atomic>;
pub(super) type TableGuard<'p> = GateGuard<'p, OrderedStore<Vpn>, Regions, Atomic>;

/// The state under the gate of a cache.
#[derive(Debug, Default)]
pub(super) struct Regions {
    /// The regions that are found, by their first page. No two overlap.
    found: BTreeMap<Vpn, Arc<Region>>,
    /// Regions that are not found any more, to be deregistered outside of callbacks.
    doomed: Vec<Arc<Region>>,
    /// Pages that were refused, for the mistake that remembers them.
    pub(super) refused: BTreeMap<Vpn, RangeFault>,
    /// The pages of the regions that are found.
    pages: u64,
    clock: u64,
    pub(super) hits: u64,
    pub(super) misses: u64,
    pub(super) evictions: u64,
}

impl Regions {
    /// Returns the region that serves an access, with a user more.
    pub(super) fn hit(&mut self, range: VpnRange, access: Access) -> Option<Arc<Region>> {
        let (_, region) = self.found.range(..=range.start()).next_back()?;
        let region = Arc::clone(region);
        if !region.is_valid() || !region.serves(range, access) {
            return None;
        }
        region.add_user();
        self.touch(&region);
        Some(region)
    }
    fn touch(&mut self, region: &Region) {
        self.clock += 1;
        region.used.store(self.clock, Ordering::Relaxed);
    }
    /// Returns the regions with a page in `range`.
    pub(super) fn overlapping(&self, range: VpnRange) -> Vec<Arc<Region>> {
        let before = self.found.range(..range.end()).rev();
        let near = before.take_while(|(_, region)| region.range.end() > range.start());
        near.map(|(_, region)| Arc::clone(region)).collect()
    }
    /// Makes a region to be found. None that overlaps it may be.
    pub(super) fn add(&mut self, region: &Arc<Region>) {
        self.touch(region);
        self.found.insert(region.range.start(), Arc::clone(region));
        self.pages += region.range.pages();
    }
    /// Lets a region that is found be found no more, and dooms it.
    pub(super) fn remove(&mut self, region: &Region) {
        if let Some(region) = self.found.remove(&region.range.start()) {
            self.pages -= region.range.pages();
            region.invalidate();
            self.doomed.push(region);
        }
    }
    /// Returns the doomed regions without a user, which are forgotten here.
    pub(super) fn idle_doomed(&mut self) -> Vec<Arc<Region>> {
        self.doomed.extract_if(.., |r| !r.is_used()).collect()
    }
    /// Returns the doomed regions with a page in `range`.
    pub(super) fn doomed(&self, range: VpnRange) -> impl Iterator<Item = &Arc<Region>> {
        self.doomed.iter().filter(move |r| r.range.overlaps(range))
    }
    /// Returns the region that was not used for the longest time, of those that `may_go`.
    pub(super) fn oldest(&self, may_go: impl Fn(&Region) -> bool) -> Option<Arc<Region>> {
        let going = self.found.values().filter(|region| may_go(region));
        let oldest = going.min_by_key(|region| region.used.load(Ordering::Relaxed));
        oldest.cloned()
    }
    /// Returns the number of regions that are found.
    pub(super) fn len(&self) -> usize {
        self.found.len()
    }
    /// Returns the number of their pages.
    pub(super) fn pages(&self) -> u64 {
        self.pages
    }
    /// Returns the number of regions that wait for their deregistration.
    pub(super) fn waiting(&self) -> usize {
        self.doomed.len()
    }
}
