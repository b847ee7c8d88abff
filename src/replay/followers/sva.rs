//! A device that shares the page table of the process.

use super::follower::Follower;
use crate::{
    ctx::CallCx,
    extmmu::{
        Meter,
        sva::{Iommu, SvaBond, SvaConfig, SvaDevice},
    },
    mm::Mm,
    oracle::Oracle,
};
use std::sync::Arc;

pub(super) struct Sharing(Arc<SvaDevice>, SvaBond);

impl Sharing {
    pub(super) fn attach(cx: &mut CallCx<'_>, mm: &Arc<Mm>) -> Self {
        let iommu = Iommu::new(SvaConfig::default());
        let device = SvaDevice::new(&iommu);
        let bond = iommu.bind(cx, mm, &device).expect("the first PASID");
        Self(device, bond)
    }
}

impl Follower for Sharing {
    fn show_to(&self, oracle: &Arc<Oracle>, mm: &Arc<Mm>) {
        oracle.watch_tlb(mm, self.1.tlb());
    }
    fn meter(&self) -> &Meter {
        self.0.iommu().meter()
    }
    fn held(&self, _cx: &mut CallCx<'_>) -> usize {
        self.0.atc_len()
    }
    fn read(&self, cx: &mut CallCx<'_>, addr: u64, out: &mut [u8]) -> bool {
        self.0.read(cx, self.1.pasid(), addr, out).is_ok()
    }
    fn write(&self, cx: &mut CallCx<'_>, addr: u64, bytes: &[u8]) {
        let _refused = self.0.write(cx, self.1.pasid(), addr, bytes);
    }
}
