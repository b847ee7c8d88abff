//! The page of a gfn-to-pfn cache, as windows see it: a translation behind a lock of its own.

use crate::{
    addr::VpnRange,
    notifier::{Cached, Translation},
    sync::Mutex,
};

/// The translation that a cache uses, if it is valid.
#[derive(Debug, Default)]
pub(super) struct CachedPage(pub(super) Mutex<Option<OfSlots>>);

/// A translation by the slots of one generation. Windows know nothing of slots, so a change of
/// slots makes it void by the generation.
#[derive(Clone, Copy, Debug)]
pub(super) struct OfSlots {
    pub(super) cached: Cached,
    pub(super) generation: u64,
    /// The place in the dirty log for a store: the slot and the page in it, if that logs.
    pub(super) log: Option<(u16, u64)>,
}

impl CachedPage {
    pub(super) fn show(&self, visit: &mut dyn FnMut(Translation)) {
        let held = *self.0.lock();
        held.iter().for_each(|of| visit(of.cached.translation()));
    }
    pub(super) fn invalidate(&self, range: VpnRange) {
        let mut held = self.0.lock();
        if held.is_some_and(|of| of.cached.range().overlaps(range)) {
            *held = None;
        }
    }
}
