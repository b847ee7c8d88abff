//! The fault path of an importer: it looks a page of the owner up, exports its frame, and enters it
//! in the partition (`xpmem_fault_handler`).
//!
//! Recalls are held off twice, but not in between: while the ticket is drawn, so that no recall is
//! in progress then, and while the page is entered, so that no recall comes before the partition
//! has heard of it. The look-up itself may open a window of the owner's own, which recalls; held
//! off, it would wait for itself.

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

/// A fault failed.
pub(super) enum NoPage {
    Refused(FaultError),
    Gone,
    /// The page cannot be put where the partition finds it.
    NoPlace(XpmemError),
}

/// A page was not put where the partition finds it.
pub(super) enum NotPut {
    /// The translation is no longer valid: look it up again.
    Again,
    /// The page is lent elsewhere. The function recalls it, and the fault is tried again.
    #[cfg_attr(not(all(feature = "remote", target_os = "linux")), allow(dead_code))]
    Elsewhere(Box<dyn FnOnce(&mut CallCx<'_>)>),
    Refused(XpmemError),
}

/// The way of a page to the partition that faulted on it.
pub(super) trait Delivery {
    /// Returns true if a fault for reading may get a writable translation.
    fn or_writable(&self) -> bool {
        false
    }
    /// Puts the page where the partition finds it. No window over the page is open, and none opens
    /// before [`tell`](Self::tell) has returned.
    fn put(&mut self, cached: &Cached) -> Result<(), NotPut>;
    /// Tells the partition of its page.
    fn tell(&mut self);
}

/// The way to a partition of this process, which finds its entries itself.
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
pub(super) struct PageRequest<'w> {
    pub(super) partition: &'w Partition,
    pub(super) of: &'w Segment,
    pub(super) page: Vpn,
    pub(super) access: Access,
}

impl Owner {
    /// Exports the page, with a reference, and enters it in the partition. The partition is told
    /// before any window can recall the page.
    pub(super) fn fault(
        &self,
        cx: &mut CallCx<'_>,
        request: &PageRequest<'_>,
        delivery: &mut dyn Delivery,
    ) -> Result<(), NoPage> {
        let mm = self.mm.upgrade().ok_or(NoPage::Gone)?;
        loop {
            // Waits for the recalls in progress, and holds new ones off.
            let blocked = self.keeper.block();
            let ticket = self.gate.ticket(request.page, request.access);
            let ticket = if delivery.or_writable() {
                ticket.or_writable()
            } else {
                ticket
            };
            drop(blocked);
            // Holds nothing off: the look-up may copy the page, and so open a window that recalls.
            let pending = mm.resolve(cx, ticket).map_err(NoPage::Refused)?;
            if self.made(XpmemMistake::NoRetry) {
                let key = (self.id, request.page);
                if let Ok(cached) = pending.vouch() {
                    let _alive = request.partition.enter(key, cached);
                    return Ok(());
                }
                continue;
            }
            let blocked = self.keeper.block();
            // A segment ends before its removal recalls, so either this sees the end, or the recall
            // sees the entry.
            if !request.of.is_there() {
                return Err(NoPage::Gone);
            }
            let exported = match pending.admit(cx) {
                Ok(permit) => self.export(permit, request, delivery),
                Err(Retry::Detached) => return Err(NoPage::Gone),
                Err(Retry::Busy | Retry::Stale) => Err(NotPut::Again),
            };
            drop(blocked);
            match exported {
                Ok(()) => return Ok(()),
                Err(NotPut::Again) => {}
                Err(NotPut::Elsewhere(come_home)) => come_home(cx),
                Err(NotPut::Refused(why)) => {
                    self.forget_unused(cx, request.page);
                    return Err(NoPage::NoPlace(why));
                }
            }
            self.meter.retried();
            crate::sync::thread::yield_now();
        }
    }
    /// Enters an admitted translation; the caller holds recalls off.
    fn export(
        &self,
        permit: Permit<'_, Pages<ShadowEntry>, (), Sleepable>,
        request: &PageRequest<'_>,
        delivery: &mut dyn Delivery,
    ) -> Result<(), NotPut> {
        let (page, range) = (request.page, permit.range());
        let guard = match self.config.references {
            References::None => permit.establish(page),
            References::Held => permit.establish_held(page),
        };
        let cached = guard.cached(&page).expect("just established");
        if cached.is_writable() && !self.made(XpmemMistake::LostDirty) {
            // The frame does not notice stores of other processes, so the entry counts as dirty
            // from the start.
            let entry = ShadowStore::get(guard.store(), &page);
            entry.expect("just established").set_dirty();
        }
        delivery.put(&cached)?;
        self.meter.faulted(range);
        let alive = request.partition.enter((self.id, page), cached);
        drop(guard);
        if !alive {
            // It was cut off meanwhile: what was put there for it goes home.
            let gone = XpmemError::CutOff(request.partition.id());
            return Err(NotPut::Refused(gone));
        }
        delivery.tell();
        Ok(())
    }
}
