//! The driver behind an IOMMU: it translates pages under its gate, and takes leases back in
//! windows.

use super::{
    config::IommuMistake,
    lease::Part,
    leases::{Given, Leases},
};
use crate::{
    addr::{Vpn, VpnRange},
    ctx::{AtomicCallbackCx, CallCx, CallbackCx, Sleepable},
    extmmu::host_mmu::{SliceError, first_byte},
    mm::Mm,
    notifier::{
        Access, Ack, ExternalMmu, Gate, GateGuard, Invalidation, OrderedStore, Seat, ShadowStore,
        Translation, WouldBlock,
    },
};
use smallvec::SmallVec;
use std::sync::Arc;

/// The IOTLB of a process, and the leases that it gave.
pub(super) struct ProcessIotlb {
    pub(super) gate: Gate<OrderedStore<Vpn>, (), Sleepable>,
    pub(super) leases: Arc<Leases>,
}

type Guard<'p> = GateGuard<'p, OrderedStore<Vpn>, (), Sleepable>;

impl ProcessIotlb {
    pub(super) fn new(seat: Seat, leases: &Arc<Leases>) -> Self {
        Self {
            gate: Gate::new(seat, OrderedStore::default(), ()),
            leases: Arc::clone(leases),
        }
    }
    /// Returns a lease for each part, all of them good at one moment. Returns `None`, and gives
    /// none, if the thread ends.
    ///
    /// # Errors
    ///
    /// [`SliceError`], and no lease is given.
    #[inline]
    pub(super) fn lease(
        &self,
        cx: &mut CallCx<'_>,
        mm: &Mm,
        parts: &[Part],
        access: Access,
    ) -> Result<Option<Given>, SliceError> {
        let right = match access {
            Access::Write if self.leases.made(IommuMistake::WritesUnseen) => Access::Read,
            asked => asked,
        };
        match self.leases.take(parts, access, right) {
            Some(given) => Ok(Some(given)),
            None => self.look_up(cx, mm, parts, (access, right)),
        }
    }
    #[inline(never)]
    fn look_up(
        &self,
        cx: &mut CallCx<'_>,
        mm: &Mm,
        parts: &[Part],
        (access, right): (Access, Access),
    ) -> Result<Option<Given>, SliceError> {
        // As often as each page is missed once, and goes again a few times.
        let mut left = 4 * parts.len() + 64;
        loop {
            let mut gate = self.gate.lock(cx);
            let missing = match self.found(&mut gate, parts, right)? {
                Ok(found) => match self.leases.give(parts, &found, (access, right)) {
                    Ok(given) => return Ok(given),
                    Err(closing) => Missing::from_slice(&[closing]),
                },
                Err(missing) => missing,
            };
            drop(gate);
            let _asks = self.leases.asks();
            for page in missing {
                let crowded = SliceError::Crowded(parts.len() as u64);
                left = left.checked_sub(1).ok_or(crowded)?;
                self.gate.translate(cx, mm, page, right, |permit| {
                    drop(permit.establish(page));
                })?;
            }
        }
    }
    /// Returns the translations of all parts, or pages that are not translated for the access.
    fn found(
        &self,
        gate: &mut Guard<'_>,
        parts: &[Part],
        right: Access,
    ) -> Result<Result<Vec<Found>, Missing>, SliceError> {
        let (mut all, mut missing) = (Vec::with_capacity(parts.len()), Missing::new());
        for Part { page, .. } in parts {
            let first = first_byte(gate, *page, right)?;
            match first.zip(gate.store().get(page)) {
                Some((first, entry)) => {
                    let translation = entry.translation();
                    let first = match translation.pfn().is_zero() {
                        true => self.leases.zeros.address(0),
                        false => first.as_ptr(),
                    };
                    all.push((translation, first));
                }
                None if missing.len() < missing.inline_size() => missing.push(*page),
                None => break,
            }
        }
        Ok(match missing.is_empty() {
            true => Ok(all),
            false => Err(missing),
        })
    }
}

/// A translation, and the address of the first byte of its page.
type Found = (Translation, *mut u8);
/// Pages that are not translated, which a miss brings in; the first of many.
type Missing = SmallVec<[Vpn; 64]>;

impl ExternalMmu for ProcessIotlb {
    fn invalidate_start<'i>(&self, mut cx: CallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        let (range, event) = (inv.range(), inv.event());
        let _closing = self.leases.take_back(range, event);
        self.gate.exclude_with(&mut cx, inv, |(), _, _| ())
    }
    fn try_invalidate_start<'i>(
        &self,
        cx: AtomicCallbackCx<'_>,
        inv: Invalidation<'i>,
    ) -> Result<Ack<'i>, WouldBlock> {
        let (range, event) = (inv.range(), inv.event());
        let _closing = self.leases.try_close(range)?;
        let revoke = |(): &mut (), _| self.leases.revoke(range, event);
        self.gate.try_exclude(cx, inv, revoke)
    }
    fn name(&self) -> &'static str {
        "iommu"
    }
    fn translations(&self, visit: &mut dyn FnMut(Translation)) -> bool {
        self.leases.for_each(visit);
        self.gate.audit(visit)
    }
    fn translations_in(&self, range: VpnRange, visit: &mut dyn FnMut(Translation)) -> bool {
        self.leases.for_each(&mut |translation| {
            if translation.range().overlaps(range) {
                visit(translation);
            }
        });
        self.gate.audit_in(range, visit)
    }
}
