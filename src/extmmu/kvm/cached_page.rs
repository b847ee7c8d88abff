//! The page of a gfn-to-pfn cache, as windows see it: a translation behind a lock of its own.

use crate::{
    addr::VpnRange,
    notifier::{Cached, Translation},
    sync::Mutex,
};

/// The translation that a cache uses, if it is valid.
#[derive(Debug, Default)]
pub(super) struct CachedPage(pub(super) Mutex<Option<Cached>>);

impl CachedPage {
    pub(super) fn show(&self, visit: &mut dyn FnMut(Translation)) {
        let held = *self.0.lock();
        held.iter().for_each(|cached| visit(cached.translation()));
    }
    pub(super) fn invalidate(&self, range: VpnRange) {
        let mut held = self.0.lock();
        if held.is_some_and(|c| c.range().overlaps(range)) {
            *held = None;
        }
    }
}
