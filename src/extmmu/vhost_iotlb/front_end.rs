//! The side that has the address space: a driver whose only entries outside of its gate are those
//! of the back-end.

use super::{
    channel::{self, MOST_OF_A_BATCH, Sender},
    frame_memory::{FrameRegion, address_of},
    message::{IotlbMessage, MessageKind},
};
#[cfg(all(feature = "host-mapping", target_os = "linux"))]
use crate::frame::PhysMem;
use crate::{
    addr::{PAGE_SIZE, Pfn, Vpn, VpnRange},
    ctx::{CallCx, CallbackCx, Sleepable},
    error::Errno,
    extmmu::{
        host_mmu::with_pages,
        vm_memory::{GuestRegion, access_of, locate},
    },
    mm::Mm,
    notifier::{
        Access, Ack, ExternalMmu, Gate, Invalidation, OrderedStore, Registration, Seat, Translation,
    },
    sync::RwLock,
};
use std::{
    io,
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::{Arc, Weak},
};
use vm_memory::{GuestAddress, Permissions, iommu::Iotlb};

/// The front-end of one vhost back-end.
pub struct FrontEnd {
    gate: Gate<OrderedStore<Vpn>, UnixStream, Sleepable>,
    mm: Weak<Mm>,
    regions: Box<[GuestRegion]>,
    memory: BackEndMemory,
}

/// The memory that a back-end has, by whose addresses it is told frames.
#[derive(Debug)]
enum BackEndMemory {
    /// [`FrameMemory`](super::FrameMemory): the frames shown there, and the IOTLB in front.
    Frames(FrameRegion, Arc<RwLock<Iotlb>>),
    /// A mapping of the file in which frames lie that have an address.
    #[cfg(all(feature = "host-mapping", target_os = "linux"))]
    Memfd(Arc<PhysMem>),
}

impl BackEndMemory {
    fn address_of(&self, pfn: Pfn) -> Option<u64> {
        match self {
            Self::Frames(..) => Some(address_of(pfn)),
            #[cfg(all(feature = "host-mapping", target_os = "linux"))]
            Self::Memfd(mem) => mem.offset_in_memfd(pfn),
        }
    }
    fn frames(&self) -> Option<(&FrameRegion, &Arc<RwLock<Iotlb>>)> {
        match self {
            Self::Frames(region, iotlb) => Some((region, iotlb)),
            #[cfg(all(feature = "host-mapping", target_os = "linux"))]
            Self::Memfd(_) => None,
        }
    }
    /// Notes the page that an update is about to show.
    fn show(&self, update: &IotlbMessage) {
        if let Some((region, _)) = self.frames() {
            region.show(update.iova, update.uaddr, update.perm);
        }
    }
    /// Hides the pages of an invalidation. A back-end that has applied it has nothing left there.
    /// Entries that other messages made go now, and iterators over them are waited for.
    fn hide(&self, invalidation: &IotlbMessage) {
        if let Some((region, iotlb)) = self.frames() {
            let (iova, size) = (invalidation.iova, invalidation.size);
            let bytes = usize::try_from(size).unwrap_or(usize::MAX);
            iotlb.write().invalidate_mapping(GuestAddress(iova), bytes);
            region.hide(iova, size);
        }
    }
}

impl FrontEnd {
    /// Registers a front-end that shows a back-end in this process these parts of an address space,
    /// at their addresses `guest`. It sends updates and invalidations to `updates`.
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
        let region = FrameRegion::new(mm.machine().mem());
        let memory = BackEndMemory::Frames(region, Arc::default());
        Self::attach_to(cx, mm, regions, (updates, memory))
    }
    /// Registers a front-end as [`attach`](Self::attach) does, for a back-end in another process
    /// that maps the frames of the machine ([`PhysMem::memfd`]).
    /// Updates carry offsets in that file.
    ///
    /// The back-end has the right to read and write every frame, as a vhost-user back-end has to
    /// all memory of its guest. That it accesses what its IOTLB maps, and that alone, is its part.
    ///
    /// # Errors
    ///
    /// [`Errno::EINVAL`], as [`attach`](Self::attach). [`Errno::EOPNOTSUPP`]: frames have no such
    /// file.
    #[cfg(all(feature = "host-mapping", target_os = "linux"))]
    pub fn attach_memfd(
        cx: &mut CallCx<'_>,
        mm: &Arc<Mm>,
        regions: &[GuestRegion],
        updates: UnixStream,
    ) -> Result<(Arc<Self>, Registration), Errno> {
        let mem = mm.machine().mem();
        let _there_is_one = mem.memfd().ok_or(Errno::EOPNOTSUPP)?;
        let memory = BackEndMemory::Memfd(Arc::clone(mem));
        Self::attach_to(cx, mm, regions, (updates, memory))
    }
    fn attach_to(
        cx: &mut CallCx<'_>,
        mm: &Arc<Mm>,
        regions: &[GuestRegion],
        (updates, memory): (UnixStream, BackEndMemory),
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
                memory,
            })
        };
        Ok(mm.register(cx, new))
    }
    /// Returns the frames that a back-end in this process is shown, and its IOTLB.
    pub(super) fn shown(&self) -> Option<(&FrameRegion, &Arc<RwLock<Iotlb>>)> {
        self.memory.frames()
    }
    /// Answers the misses of the back-end until it closes its end. Runs on a thread of its own,
    /// which takes a token for each miss.
    ///
    /// # Errors
    ///
    /// Those of the socket.
    pub fn serve(&self, misses: UnixStream) -> io::Result<()> {
        channel::serve(&misses, Sender::BackEnd, |all| {
            all.iter().try_for_each(|miss| self.answer(*miss))
        })
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
        let (first, end) = (miss.iova / PAGE_SIZE * PAGE_SIZE, miss.iova + miss.size);
        let mut pages = (first..end).step_by(PAGE_SIZE as usize).peekable();
        while pages.peek().is_some() {
            let some = pages.by_ref().take(MOST_OF_A_BATCH);
            let located = some.map(|iova| {
                let (process, _) = locate(&self.regions, GuestAddress(iova))?;
                Some((iova, Vpn::containing(process)))
            });
            let some: Vec<(u64, Vpn)> = located.collect::<Option<_>>().ok_or(Errno::EFAULT)?;
            let machine = mm.machine();
            let answered = machine.with_current(|cx| self.update(cx, &mm, &some, access));
            answered.map_err(|_| Errno::EBUSY)??;
        }
        Ok(())
    }
    /// Translates pages, and sends the updates with the gate locked.
    fn update(
        &self,
        cx: &mut CallCx<'_>,
        mm: &Mm,
        pages: &[(u64, Vpn)],
        access: Access,
    ) -> Result<(), Errno> {
        let perm = match access {
            Access::Read => Permissions::Read,
            Access::Write => Permissions::ReadWrite,
        };
        // Stores are not reported: a frame for writing counts as dirty from now on.
        let each = pages.iter().map(|(_, page)| *page);
        let each = (each, pages.len() as u64, access);
        let sent = with_pages(&self.gate, cx, mm, each, |gate, _has_addresses| {
            let update = |(iova, page): &(u64, Vpn)| {
                let pfn = gate.lookup(page)?.pfn();
                Some(IotlbMessage {
                    iova: *iova,
                    size: PAGE_SIZE,
                    uaddr: self.memory.address_of(pfn)?,
                    perm,
                    kind: MessageKind::Update,
                })
            };
            let updates = pages.iter().map(update).collect::<Option<Vec<_>>>()?;
            updates.iter().for_each(|update| self.memory.show(update));
            Some(channel::ask(&*gate.state(), Sender::FrontEnd, &updates))
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
        let parts = self.regions.iter().filter_map(|region| {
            let from = start.max(region.process);
            let to = end.min(region.process.saturating_add(region.len));
            (from < to).then(|| IotlbMessage {
                iova: region.guest.0 + (from - region.process),
                size: to - from,
                uaddr: 0,
                perm: Permissions::No,
                kind: MessageKind::Invalidate,
            })
        });
        let parts: Vec<IotlbMessage> = parts.collect();
        for batch in parts.chunks(MOST_OF_A_BATCH) {
            // A back-end that has closed its end has dropped everything.
            let _answer = channel::ask(updates, Sender::FrontEnd, batch);
        }
        parts.iter().for_each(|part| self.memory.hide(part));
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
