//! The side that has the address space: a driver whose only entries outside of its gate are those
//! of the back-end.

use super::{
    frame_memory::address_of,
    message::{self, IotlbMessage, MessageKind},
};
use crate::{
    addr::{PAGE_SIZE, Vpn, VpnRange},
    ctx::{CallCx, CallbackCx, Sleepable},
    error::Errno,
    extmmu::{
        host_mmu::first_byte,
        vm_memory::{GuestRegion, access_of, locate},
    },
    mm::Mm,
    notifier::{
        Access, Ack, ExternalMmu, Gate, Invalidation, OrderedStore, Registration, Seat, Translation,
    },
};
use std::{
    io,
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::{Arc, Weak},
};
use vm_memory::{GuestAddress, Permissions};

/// The front-end of one vhost back-end.
pub struct FrontEnd {
    gate: Gate<OrderedStore<Vpn>, UnixStream, Sleepable>,
    mm: Weak<Mm>,
    regions: Box<[GuestRegion]>,
}

impl FrontEnd {
    /// Registers a front-end that shows the back-end these parts of an address space, at their
    /// addresses `guest`. It sends updates and invalidations to `updates`.
    ///
    /// Each region is made of pages, in the back-end and in the process, and ends below 2^64 in the
    /// back-end.
    ///
    /// # Errors
    ///
    /// [`Errno::EINVAL`]: a region is not, or does not.
    pub fn attach(
        cx: &mut CallCx<'_>,
        mm: &Arc<Mm>,
        regions: &[GuestRegion],
        updates: UnixStream,
    ) -> Result<(Arc<Self>, Registration), Errno> {
        let fits = |region: &GuestRegion| {
            let bytes = [region.guest.0, region.process, region.len];
            let aligned = bytes.iter().all(|bytes| bytes.is_multiple_of(PAGE_SIZE));
            aligned && region.guest.0.checked_add(region.len).is_some()
        };
        if !regions.iter().all(fits) {
            return Err(Errno::EINVAL);
        }
        let new = |seat: Seat| {
            Arc::new(Self {
                gate: Gate::new(seat, OrderedStore::default(), updates),
                mm: Arc::downgrade(mm),
                regions: regions.into(),
            })
        };
        Ok(mm.register(cx, new))
    }
    /// Answers the misses of the back-end until it closes its end. Runs on a thread of its own,
    /// which takes a token for each miss.
    ///
    /// # Errors
    ///
    /// Those of the socket.
    pub fn serve(&self, misses: UnixStream) -> io::Result<()> {
        message::serve(&misses, |miss| self.answer(miss))
    }
    /// Closes the socket of updates, as a front-end that is given up: the IOTLB of the back-end
    /// becomes empty.
    ///
    /// The front-end is to be unregistered first: the windows of one that is closed wait for
    /// nothing.
    pub fn close(&self, cx: &mut CallCx<'_>) {
        // A socket that is closed already is as good.
        let _closed = self.gate.lock(cx).state().shutdown(Shutdown::Both);
    }
    fn answer(&self, miss: IotlbMessage) -> Result<(), Errno> {
        let access = access_of(miss.perm).unwrap_or(Access::Read);
        if miss.kind != MessageKind::Miss {
            return Err(Errno::EINVAL);
        }
        let mm = self.mm.upgrade().ok_or(Errno::ESRCH)?;
        // Page by page; an address that no region has ends it.
        let (first, end) = (miss.iova / PAGE_SIZE * PAGE_SIZE, miss.iova + miss.size);
        for iova in (first..end).step_by(PAGE_SIZE as usize) {
            let (process, _) = locate(&self.regions, GuestAddress(iova)).ok_or(Errno::EFAULT)?;
            let answered = mm
                .machine()
                .with_current(|cx| self.update(cx, &mm, iova, (Vpn::containing(process), access)));
            answered.map_err(|_| Errno::EBUSY)??;
        }
        Ok(())
    }
    /// Translates a page, and sends the update with the gate locked.
    fn update(
        &self,
        cx: &mut CallCx<'_>,
        mm: &Mm,
        iova: u64,
        (page, access): (Vpn, Access),
    ) -> Result<(), Errno> {
        let sent = self.gate.translate(cx, mm, page, access, |permit| {
            let pfn = permit.pfn();
            let mut guard = permit.establish(page);
            // Stores are not reported: a frame for writing counts as dirty from now on.
            let _its_bytes_have_one = first_byte(&mut guard, page, access).ok()??;
            let update = IotlbMessage {
                iova,
                size: PAGE_SIZE,
                uaddr: address_of(pfn),
                perm: match access {
                    Access::Read => Permissions::Read,
                    Access::Write => Permissions::ReadWrite,
                },
                kind: MessageKind::Update,
            };
            Some(message::ask(&*guard.state(), update))
        });
        match sent.map_err(|why| why.errno())? {
            Some(Ok(0)) => Ok(()),
            Some(_) => Err(Errno::EIO),
            None => Err(Errno::EOPNOTSUPP),
        }
    }
    /// Has the back-end drop the parts of a range that it may have.
    fn invalidate(&self, updates: &UnixStream, range: VpnRange) {
        let (start, end) = (range.start().addr(), range.end().addr());
        for region in &self.regions {
            let from = start.max(region.process);
            let to = end.min(region.process.saturating_add(region.len));
            if from >= to {
                continue;
            }
            let gone = IotlbMessage {
                iova: region.guest.0 + (from - region.process),
                size: to - from,
                uaddr: 0,
                perm: Permissions::No,
                kind: MessageKind::Invalidate,
            };
            // A back-end that has closed its end has dropped everything.
            if message::ask(updates, gone).is_err() {
                return;
            }
        }
    }
}

impl ExternalMmu for FrontEnd {
    fn invalidate_start<'i>(&self, mut cx: CallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        self.gate.exclude_with(&mut cx, inv, |updates, gone, _| {
            if !gone.entries().is_empty() {
                self.invalidate(updates, gone.range());
            }
        })
    }
    fn name(&self) -> &'static str {
        "vhost"
    }
    fn translations(&self, visit: &mut dyn FnMut(Translation)) -> bool {
        self.gate.audit(visit)
    }
    fn translations_in(&self, range: VpnRange, visit: &mut dyn FnMut(Translation)) -> bool {
        self.gate.audit_in(range, visit)
    }
}

impl std::fmt::Debug for FrontEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrontEnd")
            .field("regions", &self.regions)
            .finish_non_exhaustive()
    }
}
