//! An RDMA adapter with a region of everything.

use super::follower::Follower;
use crate::{
    ctx::CallCx,
    extmmu::{
        Meter,
        odp::{Adapter, Key, OdpConfig, Region},
    },
    mm::Mm,
    oracle::Oracle,
};
use std::sync::Arc;

pub(super) struct Rdma {
    adapter: Arc<Adapter>,
    key: Key,
    region: Arc<Region>,
}

impl Rdma {
    pub(super) fn attach(cx: &mut CallCx<'_>, mm: &Arc<Mm>) -> Self {
        let adapter = Adapter::new(OdpConfig::default());
        let (key, region, _stays) = adapter.register_everything(cx, mm);
        Self {
            adapter,
            key,
            region,
        }
    }
}

impl Follower for Rdma {
    fn show_to(&self, oracle: &Arc<Oracle>, mm: &Arc<Mm>) {
        oracle.watch(mm, self.region.clone());
    }
    fn meter(&self) -> &Meter {
        self.adapter.meter()
    }
    fn held(&self, cx: &mut CallCx<'_>) -> usize {
        self.region.entries(cx)
    }
    fn read(&self, cx: &mut CallCx<'_>, addr: u64, out: &mut [u8]) -> bool {
        self.adapter.read(cx, self.key, addr, out).is_ok()
    }
    fn write(&self, cx: &mut CallCx<'_>, addr: u64, bytes: &[u8]) {
        let _refused = self.adapter.write(cx, self.key, addr, bytes);
    }
}
