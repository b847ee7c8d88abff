//! A device with an address translation cache.
//!
//! The device looks into its ATC, then asks the IOMMU, which looks into its IOTLB and then into the
//! page table; where nothing is present it sends a page request. It uses a translation under the
//! lock that a flush takes: a real flush ends after the accesses that used the entry.

use super::{
    atc::{Asked, Atc},
    domain::{Devices, Domain},
    error::SvaFault,
    iommu::Iommu,
    mistake::SvaMistake,
    requests::{GroupId, PageRequest, Response},
};
use crate::{
    addr::{Bytes, Vpn, VpnRange, by_page},
    ctx::CallCx,
    error::FaultError,
    notifier::{Access, TlbEntry, TlbPages},
    sync::{AtomicU64, IdSource, Mutex, Ordering},
};
use std::{collections::BTreeMap, sync::Arc};

static NEXT: IdSource = IdSource::starting_at(0);

/// The number of a process on an IOMMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pasid(pub u32);

/// A device behind an IOMMU.
pub struct SvaDevice {
    iommu: Arc<Iommu>,
    id: u64,
    /// The processes that the device is bound to, by PASID.
    table: Mutex<BTreeMap<u32, Arc<Domain>>>,
    pub(super) atc: Arc<Atc>,
    groups: AtomicU64,
}

/// The outcome of a look into the caches.
enum Found<V> {
    Done(V),
    Miss,
    Stale,
    /// The device is not bound to the process any more.
    Unbound,
    /// A copy that is used later, for the mistake.
    Copied(TlbEntry),
}

impl SvaDevice {
    /// Creates a device behind an IOMMU, bound to nothing.
    pub fn new(iommu: &Arc<Iommu>) -> Arc<Self> {
        Arc::new(Self {
            iommu: Arc::clone(iommu),
            id: NEXT.next(),
            table: Mutex::default(),
            atc: Arc::new(Atc::new(iommu.config.atc)),
            groups: AtomicU64::new(0),
        })
    }
    /// Returns the IOMMU.
    pub fn iommu(&self) -> &Arc<Iommu> {
        &self.iommu
    }
    /// Returns the number of entries of the ATC.
    pub fn atc_len(&self) -> usize {
        self.atc.len()
    }
    pub(super) fn id(&self) -> u64 {
        self.id
    }
    fn is_bound(&self, pasid: u32) -> bool {
        self.table.lock().contains_key(&pasid)
    }
    pub(super) fn enter(&self, domain: &Arc<Domain>) {
        self.table.lock().insert(domain.pasid, Arc::clone(domain));
    }
    pub(super) fn leave(&self, pasid: u32) {
        self.table.lock().remove(&pasid);
    }
    /// Reads bytes at an address of the process; the bytes of one page are read at once.
    ///
    /// # Errors
    ///
    /// [`SvaFault`]; the bytes before the page that failed have been read.
    pub fn read(
        &self,
        cx: &mut CallCx<'_>,
        pasid: Pasid,
        addr: u64,
        out: &mut [u8],
    ) -> Result<(), SvaFault> {
        self.transfer(
            cx,
            (pasid, addr, Access::Read),
            out,
            |pages, entry, offset, part| pages.view(entry).map(|frame| frame.read(offset, part)),
        )
    }
    /// Writes bytes at an address of the process; the bytes of one page are written at once.
    ///
    /// # Errors
    ///
    /// [`SvaFault`]; the bytes before the page that failed have been written.
    pub fn write(
        &self,
        cx: &mut CallCx<'_>,
        pasid: Pasid,
        addr: u64,
        bytes: &[u8],
    ) -> Result<(), SvaFault> {
        self.transfer(
            cx,
            (pasid, addr, Access::Write),
            bytes,
            |pages, entry, offset, part| {
                pages
                    .view_mut(entry)
                    .map(|mut frame| frame.write(offset, part))
            },
        )
    }
    fn transfer<B: Bytes>(
        &self,
        cx: &mut CallCx<'_>,
        (pasid, addr, access): (Pasid, u64, Access),
        bytes: B,
        mut f: impl FnMut(&mut TlbPages<'_>, &TlbEntry, usize, B) -> Option<()>,
    ) -> Result<(), SvaFault> {
        by_page(addr, bytes, |page, offset, part| {
            let asked = Asked {
                pasid: pasid.0,
                addr: page.addr() + offset as u64,
                access,
            };
            let mut part = Some(part);
            self.access(cx, asked, |pages, entry| {
                let part = part.take().expect("once");
                f(pages, entry, offset, part)
            })
        })
    }
    /// Makes one access. `f` returns `None` for a translation of another process.
    fn access<V>(
        &self,
        cx: &mut CallCx<'_>,
        asked: Asked,
        mut f: impl FnMut(&mut TlbPages<'_>, &TlbEntry) -> Option<V>,
    ) -> Result<V, SvaFault> {
        let Asked { pasid, addr, .. } = asked;
        loop {
            let domain = self.table.lock().get(&pasid).cloned();
            let domain = domain.ok_or(SvaFault::NotBound(pasid))?;
            if domain.is_quiet() {
                return Err(SvaFault::Gone(pasid));
            }
            let found = domain
                .gate
                .with(cx, |devices, pages| match self.is_among(devices) {
                    true => self.look(&domain, pages, asked, &mut f),
                    false => Found::Unbound,
                });
            match found {
                Found::Unbound => return Err(SvaFault::NotBound(pasid)),
                Found::Done(value) => return Ok(value),
                Found::Miss => self.fill(cx, &domain, asked)?,
                // The process may have ended since.
                Found::Stale if domain.is_quiet() => return Err(SvaFault::Gone(pasid)),
                Found::Stale => return Err(SvaFault::Stale(addr)),
                Found::Copied(entry) => {
                    let used = domain.gate.with(cx, |_, pages| f(pages, &entry));
                    return used.ok_or(SvaFault::Gone(pasid));
                }
            }
        }
    }
    /// Returns true if flushes of the process come to this device. Asked under the lock under which
    /// a binding ends: afterwards the device must keep nothing of the process.
    fn is_among(&self, devices: &Devices) -> bool {
        let mut bound = devices.iter();
        bound.any(|atc| std::ptr::eq(atc.as_ptr(), Arc::as_ptr(&self.atc)))
    }
    /// Looks into the caches, and makes the access if they have the page.
    fn look<V>(
        &self,
        domain: &Domain,
        pages: &mut TlbPages<'_>,
        asked: Asked,
        f: &mut impl FnMut(&mut TlbPages<'_>, &TlbEntry) -> Option<V>,
    ) -> Found<V> {
        let Some(entry) = self.atc.look(pages, asked) else {
            return Found::Miss;
        };
        if domain.made(SvaMistake::UsesUnlocked) {
            return Found::Copied(entry);
        }
        f(pages, &entry).map_or(Found::Stale, Found::Done)
    }
    /// Fills the IOTLB by a walk, or has the page made present.
    fn fill(&self, cx: &mut CallCx<'_>, domain: &Domain, asked: Asked) -> Result<(), SvaFault> {
        let Asked {
            pasid,
            addr,
            access,
        } = asked;
        let page = Vpn::containing(addr);
        let refused = |why| SvaFault::Refused { addr, why };
        if self.atc.refuses(asked) {
            return Err(refused(FaultError::Denied(addr)));
        }
        let mm = domain.mm.upgrade().ok_or(SvaFault::Gone(pasid))?;
        domain.gate.with(cx, |_, pages| {
            while pages.len() >= domain.config.iotlb.max(1) {
                pages.remove_first();
            }
        });
        if mm.walk(cx, &domain.gate, page, access).map_err(refused)? {
            domain.meter.faulted(page.into());
            return Ok(());
        }
        match self.request(cx, Pasid(pasid), page.into(), access) {
            Response::Success => {
                domain.meter.retried();
                Ok(())
            }
            Response::Invalid(_) if domain.is_quiet() => Err(SvaFault::Gone(pasid)),
            Response::Invalid(_) if !self.is_bound(pasid) => Err(SvaFault::NotBound(pasid)),
            Response::Invalid(why) => {
                if domain.made(SvaMistake::KeepsRefusals) {
                    self.atc.refuse(asked);
                }
                Err(refused(why))
            }
        }
    }
    /// Sends a page request for each page of a range, as one group, and waits for the answer. This
    /// thread serves requests meanwhile, its own or those of others.
    pub fn request(
        &self,
        cx: &mut CallCx<'_>,
        pasid: Pasid,
        pages: VpnRange,
        access: Access,
    ) -> Response {
        let (group, is_queued) = self.post(pasid, pages, access);
        if !is_queued {
            // Its answer is there already: others have their turn before it tries again.
            self.iommu.serve_one(cx);
        }
        self.iommu.requests.groups.wait(group, || {
            self.iommu.serve_one(cx);
        })
    }
    /// Sends a group of page requests, and waits for nothing: [`Iommu::serve_one`] serves them. Of
    /// a group that is longer than the queue twice, a part in the middle is left out: the queue
    /// would drop it.
    pub fn send_requests(&self, pasid: Pasid, pages: VpnRange, access: Access) -> u64 {
        self.post(pasid, pages, access).0.number
    }
    /// Returns the answer to a group of [`send_requests`](Self::send_requests), once.
    pub fn take_response(&self, pasid: Pasid, group: u64) -> Option<Response> {
        let group = self.group(pasid, group);
        self.iommu.requests.groups.answer_to(group)
    }
    fn group(&self, pasid: Pasid, number: u64) -> GroupId {
        GroupId {
            device: self.id,
            pasid: pasid.0,
            number,
        }
    }
    /// Sends a group, and returns false if the queue had no room for all of it.
    fn post(&self, pasid: Pasid, pages: VpnRange, access: Access) -> (GroupId, bool) {
        let number = self.groups.fetch_add(1, Ordering::Relaxed);
        let group = self.group(pasid, number);
        // Held to the end: an unbinding drains what was sent before it, and nothing comes after.
        let table = self.table.lock();
        let Some(domain) = table.get(&pasid.0) else {
            self.iommu.requests.refuse(group, pages.start());
            return (group, true);
        };
        let mut is_queued = true;
        for page in self.iommu.requests.sent(pages) {
            let request = PageRequest {
                group,
                page,
                access,
                is_last: page.plus(1) == pages.end(),
            };
            domain.meter.requested();
            is_queued &= self.iommu.requests.send(request, &domain.mm);
        }
        (group, is_queued)
    }
}

impl std::fmt::Debug for SvaDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SvaDevice")
            .field("id", &self.id)
            .field("atc", &self.atc_len())
            .finish_non_exhaustive()
    }
}
