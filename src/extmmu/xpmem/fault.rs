//! How an importer comes by a page of the owner (`xpmem_fault_handler`).

use super::{
    config::XpmemMistake,
    error::XpmemError,
    owner::Owner,
    pages::Pages,
    partition::Partition,
    segment::{SegId, Segment},
};
use crate::{
    addr::Vpn,
    ctx::{CallCx, Sleepable},
    error::FaultError,
    extmmu::References,
    notifier::{Access, Cached, Permit, Retry, ShadowEntry, ShadowStore},
};

/// Why a page did not come.
pub(super) enum NoPage {
    Refused(FaultError),
    Gone,
    /// It cannot be put where the partition finds it.
    NoPlace(XpmemError),
}

/// Why a page is not put where the partition finds it.
pub(super) enum NotPut {
    /// What was looked up does not hold any more.
    Again,
    /// It lies elsewhere: this has it come home first.
    #[cfg_attr(not(all(feature = "remote", target_os = "linux")), allow(dead_code))]
    Elsewhere(Box<dyn FnOnce(&mut CallCx<'_>)>),
    #[cfg_attr(not(all(feature = "remote", target_os = "linux")), allow(dead_code))]
    Refused(XpmemError),
}

/// How a page comes to the partition that faulted on it.
pub(super) trait Delivery {
    /// Whether a translation for writing is welcome that was asked for reading.
    fn or_writable(&self) -> bool {
        false
    }
    /// Puts the page where the partition finds it. No window is open over the page, and none opens before the partition
    /// has been told.
    fn put(&mut self, cached: &Cached) -> Result<(), NotPut>;
    /// Tells the partition.
    fn tell(&mut self);
}

/// To a partition of this process, which finds its entries itself.
pub(super) struct Here;

impl Delivery for Here {
    fn put(&mut self, _: &Cached) -> Result<(), NotPut> {
        Ok(())
    }
    fn tell(&mut self) {}
}

impl NoPage {
    pub(super) fn at(self, at: u64, segment: SegId) -> XpmemError {
        match self {
            Self::Refused(why) => XpmemError::Fault { at, why },
            Self::Gone => XpmemError::NoSegment(segment),
            Self::NoPlace(why) => why,
        }
    }
}

/// A fault of a partition.
pub(super) struct Wanted<'w> {
    pub(super) partition: &'w Partition,
    pub(super) of: &'w Segment,
    pub(super) page: Vpn,
    pub(super) access: Access,
}

impl Owner {
    /// Exports the page, with a reference, and enters it in the partition, which is told before any window can recall the
    /// page.
    pub(super) fn fault(
        &self,
        cx: &mut CallCx<'_>,
        wanted: &Wanted<'_>,
        delivery: &mut dyn Delivery,
    ) -> Result<(), NoPage> {
        let mm = self.mm.upgrade().ok_or(NoPage::Gone)?;
        loop {
            // Recalls wait while this is held, and this waits for those in progress.
            let blocked = self.keeper.block();
            let ticket = self.gate.ticket(wanted.page, wanted.access);
            let ticket = if delivery.or_writable() {
                ticket.or_writable()
            } else {
                ticket
            };
            drop(blocked);
            // Nothing is held here: the look-up may copy the page, and so open a window that recalls.
            let pending = mm.resolve(cx, ticket).map_err(NoPage::Refused)?;
            if self.made(XpmemMistake::NoRetry) {
                let key = (self.id, wanted.page);
                let _alive = wanted.partition.enter(key, pending.vouch());
                return Ok(());
            }
            let blocked = self.keeper.block();
            // Whoever removes a segment recalls after it has ended.
            if !wanted.of.is_there() {
                return Err(NoPage::Gone);
            }
            let exported = match pending.admit(cx) {
                Ok(permit) => self.export(permit, wanted, delivery),
                Err(Retry::Detached) => return Err(NoPage::Gone),
                Err(Retry::Busy | Retry::Stale) => Err(NotPut::Again),
            };
            drop(blocked);
            match exported {
                Ok(()) => return Ok(()),
                Err(NotPut::Again) => {}
                Err(NotPut::Elsewhere(come_home)) => come_home(cx),
                Err(NotPut::Refused(why)) => return Err(NoPage::NoPlace(why)),
            }
            self.meter.retried();
            crate::sync::thread::yield_now();
        }
    }
    /// Enters what was looked up, recalls held off.
    fn export(
        &self,
        permit: Permit<'_, Pages<ShadowEntry>, (), Sleepable>,
        wanted: &Wanted<'_>,
        delivery: &mut dyn Delivery,
    ) -> Result<(), NotPut> {
        let (page, range) = (wanted.page, permit.range());
        let guard = match self.config.references {
            References::Unpinned => permit.establish(page),
            References::Pinned => permit.establish_pinned(page),
        };
        let cached = guard.cached(&page).expect("just established");
        if cached.is_writable() && !self.made(XpmemMistake::LostDirty) {
            // Of what another process stores, nobody tells the frame.
            let entry = ShadowStore::get(guard.store(), &page);
            entry.expect("just established").set_dirty();
        }
        delivery.put(&cached)?;
        self.meter.faulted(range);
        // A partition that was cut off meanwhile gets nothing; its next access is told so.
        let alive = wanted.partition.enter((self.id, page), cached);
        drop(guard);
        if alive {
            delivery.tell();
        }
        Ok(())
    }
}
