//! How an importer comes by a page of the owner (`xpmem_fault_handler`).

use super::{Mistake, Owner, SegId, XpmemError, partition::Partition};
use crate::{
    addr::Vpn,
    ctx::{Cx, Sleepable, rank},
    error::FaultError,
    extmmu::References,
    notifier::{Access, Cached, Retry, ShadowStore},
};

type Idle<'t> = Cx<'t, rank::Idle, Sleepable>;

/// Why a page did not come.
pub(super) enum NoPage {
    Refused(FaultError),
    Gone,
}

impl NoPage {
    pub(super) fn at(self, at: u64, segment: SegId) -> XpmemError {
        match self {
            Self::Refused(why) => XpmemError::Fault { at, why },
            Self::Gone => XpmemError::NoSegment(segment),
        }
    }
}

impl Owner {
    /// Exports the page, with a reference, and enters it in the partition. `deliver` tells the partition so, before any
    /// window can recall the page.
    pub(super) fn fault(
        &self,
        cx: &mut Idle<'_>,
        partition: &Partition,
        page: Vpn,
        access: Access,
        deliver: impl FnOnce(&Cached),
    ) -> Result<(), NoPage> {
        let mm = self.mm.upgrade().ok_or(NoPage::Gone)?;
        loop {
            // Recalls wait while this is held, and this waits for those in progress.
            let blocked = self.keeper.block();
            let ticket = self.gate.ticket(page, access);
            drop(blocked);
            // Nothing is held here: the look-up may copy the page, and so open a window that recalls.
            let pending = mm.resolve(cx, ticket).map_err(NoPage::Refused)?;
            if self.made(Mistake::NoRetry) {
                let _alive = partition.enter((self.id, page), pending.vouch());
                return Ok(());
            }
            let blocked = self.keeper.block();
            match pending.admit(cx) {
                Ok(permit) => {
                    self.meter.faulted(permit.range());
                    let guard = match self.config.references {
                        References::Unpinned => permit.establish(page),
                        References::Pinned => permit.establish_pinned(page),
                    };
                    let cached = guard.cached(&page).expect("just established");
                    // A partition that was cut off meanwhile gets nothing; its next access is told so.
                    let alive = partition.enter((self.id, page), cached);
                    if cached.is_writable() && !self.made(Mistake::LostDirty) {
                        // Of what another process stores, nobody tells the frame.
                        let entry = ShadowStore::get(guard.store(), &page);
                        entry.expect("just established").set_dirty();
                    }
                    drop(guard);
                    if alive {
                        deliver(&cached);
                    }
                    drop(blocked);
                    return Ok(());
                }
                Err(Retry::Detached) => return Err(NoPage::Gone),
                Err(Retry::Busy | Retry::Stale) => drop(blocked),
            }
            self.meter.retried();
            crate::sync::thread::yield_now();
        }
    }
}
