//! An adapter with a registration cache. Where page tables are not compared, regions are pinned.

use super::follower::{Compared, Follower};
use crate::{
    ctx::CallCx,
    extmmu::{
        Meter,
        regcache::{RegCache, RegCacheConfig},
    },
    mm::Mm,
    oracle::Oracle,
};
use std::sync::Arc;

pub(super) struct Adapter(Arc<RegCache>);

impl Adapter {
    pub(super) fn attach(cx: &mut CallCx<'_>, mm: &Arc<Mm>, compared: Compared) -> Self {
        let config = match compared {
            // A block would fault in neighbours.
            Compared::Pages => RegCacheConfig {
                pinned: false,
                block: 1,
                ..RegCacheConfig::default()
            },
            Compared::Layout => RegCacheConfig::default(),
        };
        Self(RegCache::attach(cx, mm, config).0)
    }
}

impl Follower for Adapter {
    fn show_to(&self, oracle: &Arc<Oracle>, mm: &Arc<Mm>) {
        oracle.watch(mm, self.0.clone());
    }
    fn meter(&self) -> &Meter {
        self.0.meter()
    }
    fn held(&self, cx: &mut CallCx<'_>) -> usize {
        self.0.stats(cx).regions
    }
    fn read(&self, cx: &mut CallCx<'_>, addr: u64, out: &mut [u8]) -> bool {
        self.0.read(cx, addr, out).is_ok()
    }
    fn write(&self, cx: &mut CallCx<'_>, addr: u64, bytes: &[u8]) {
        let _refused = self.0.write(cx, addr, bytes);
    }
}
