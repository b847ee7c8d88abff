//! A partition that has the whole address space attached.

use super::follower::Follower;
use crate::{
    addr::{TASK_PAGES, VpnRange},
    ctx::CallCx,
    extmmu::{
        Meter, References,
        xpmem::{Attachment, Owner, OwnerConfig, Partition, PartitionId},
    },
    mm::Mm,
    notifier::Access,
    oracle::Oracle,
};
use std::sync::Arc;

pub(super) struct Importer(Arc<Owner>, Attachment);

impl Importer {
    pub(super) fn attach(cx: &mut CallCx<'_>, mm: &Arc<Mm>) -> Self {
        // References would show: Linux copies a page that has more of them than mappings.
        let config = OwnerConfig {
            references: References::None,
            ..OwnerConfig::default()
        };
        let (owner, _stays) = Owner::attach(cx, mm, config);
        let segment = owner.make(VpnRange::TASK, Access::Write);
        // What a script compares is the same with a thread, which a window would have to wake.
        let partition = Partition::without_thread(PartitionId(1));
        let attached = owner.import(&partition, segment, 0, TASK_PAGES);
        Self(owner, attached.expect("all of the segment"))
    }
}

impl Follower for Importer {
    fn show_to(&self, oracle: &Arc<Oracle>, mm: &Arc<Mm>) {
        oracle.watch(mm, self.0.clone());
    }
    fn meter(&self) -> &Meter {
        self.0.meter()
    }
    fn held(&self, _cx: &mut CallCx<'_>) -> usize {
        self.1.partition().entries()
    }
    fn read(&self, cx: &mut CallCx<'_>, addr: u64, out: &mut [u8]) -> bool {
        self.1.read(cx, addr, out).is_ok()
    }
    fn write(&self, cx: &mut CallCx<'_>, addr: u64, bytes: &[u8]) {
        let _refused = self.1.write(cx, addr, bytes);
    }
}
