//! The IOMMU as device models have it.

use super::{
    config::IommuConfig,
    holder::Holder,
    iotlb::ProcessIotlb,
    iova_bitmap::IovaBitmap,
    lease::Part,
    leased_memory::{LeasedMemory, LeasedRegion, address_of},
    leases::Leases,
    page_iotlbs::{self, Key},
    stale_use::StaleUse,
};
use crate::{
    addr::{PAGE_SIZE, chunks},
    ctx::CallCx,
    extmmu::{
        dirty_pages::DirtyPages,
        vm_memory::{GuestRegion, access_of, locate},
    },
    mm::Mm,
    notifier::{Access, ExternalMmu, Registration},
};
use smallvec::SmallVec;
use std::{ops::Deref, sync::Arc};
use vm_memory::{
    GuestAddress, GuestUsize, IommuMemory, Permissions,
    iommu::{Error, Iommu, Iotlb, IotlbIterator, IovaRange},
};

/// An IOMMU that gives devices parts of a process's memory (`vm_memory::Iommu`).
///
/// Guarantee: a slice that [`memory`](Self::memory) gives out is the memory of the process, until
/// it is dropped or [revoked](super::OnWindow). A store to a slice that was asked for writing and
/// then revoked reaches no other process. How: a slice holds a lease of its page; a window over the
/// page takes the lease back before it opens.
///
/// A lease of a page that was leased before, which no window revokes, takes two atomic operations:
/// one counts it at its page, the other counts it out. It takes no lock. Iterators and slices stay
/// with their thread.
///
/// `VolatileSlice` has no type for reading alone: a store to a slice that was asked for reading is
/// a mistake of the device, and is reported. The page may be that of other processes as well.
///
/// Calls take a token by [`Machine::with_current`](crate::Machine::with_current), as those of
/// [`ProcessMemory`](crate::extmmu::vm_memory::ProcessMemory) do.
///
/// # Examples
///
/// ```
/// use emmu::{Machine, MachineConfig, Mm, PAGE_SIZE, mm::{Advice, MmapArgs}};
/// use emmu::extmmu::{iommu::ProcessIommu, vm_memory::GuestRegion};
/// use vm_memory::{Bytes, GuestAddress};
///
/// let machine = Machine::new(MachineConfig::default());
/// let mut thread = machine.enter()?;
/// let mut cx = thread.cx();
/// let mm = Mm::new(&machine);
/// let process = mm.mmap(&mut cx, &MmapArgs::anonymous(2 * PAGE_SIZE))?;
/// let iova = GuestAddress(0x1000);
/// let region = GuestRegion { guest: iova, len: 2 * PAGE_SIZE, process };
/// let (iommu, registration) = ProcessIommu::attach(&mut cx, &mm, &[region], Default::default());
///
/// let memory = iommu.memory(); // for any device model that takes guest memory
/// cx.lend(|| memory.write_obj(7_u32, iova))?;
/// assert_eq!(mm.load(&mut cx, process)?, 7);
/// assert_eq!(iommu.dirty_pages().take(), [0x1000]);
///
/// mm.madvise(&mut cx, process, PAGE_SIZE, Advice::DontNeed)?; // a window
/// assert_eq!(cx.lend(|| memory.read_obj::<u32>(iova))?, 0);
/// mm.unregister(&mut cx, registration);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct ProcessIommu {
    iotlb: Arc<ProcessIotlb>,
    mm: Arc<Mm>,
    regions: Arc<[GuestRegion]>,
}

impl ProcessIommu {
    /// Registers an IOMMU on an address space that shows devices these parts of it, at their
    /// addresses `guest`. Of regions that overlap, the first one counts.
    pub fn attach(
        cx: &mut CallCx<'_>,
        mm: &Arc<Mm>,
        regions: &[GuestRegion],
        config: IommuConfig,
    ) -> (Self, Registration) {
        let leases = Leases::new(mm.machine().mem(), config);
        let new = |seat| Arc::new(ProcessIotlb::new(seat, &leases));
        let (iotlb, registration) = mm.register(cx, new);
        let iommu = Self {
            iotlb,
            mm: Arc::clone(mm),
            regions: regions.into(),
        };
        (iommu, registration)
    }
    /// Returns guest memory behind this IOMMU.
    ///
    /// It must stay enabled (`IommuMemory::set_iommu_enabled`): there is no memory beside it.
    pub fn memory(&self) -> IommuMemory<LeasedMemory, Self> {
        let leases = || Arc::clone(&self.iotlb.leases);
        let region = LeasedRegion { leases: leases() };
        let bitmap = IovaBitmap { leases: leases() };
        IommuMemory::new(LeasedMemory { region }, self.clone(), true, bitmap)
    }
    /// Returns the address space.
    pub fn space(&self) -> &Arc<Mm> {
        &self.mm
    }
    /// Returns the pages that were stored to through slices, by I/O address.
    pub fn dirty_pages(&self) -> &DirtyPages {
        &self.iotlb.leases.dirty
    }
    /// Returns the first misuse of a slice: an access after a window had revoked it, or a store to
    /// one that was asked for reading.
    pub fn stale_use(&self) -> Option<StaleUse> {
        self.iotlb.leases.stale_use()
    }
    /// Returns the number of leases: parts of pages that iterators or slices have.
    pub fn leases(&self) -> usize {
        self.iotlb.leases.len()
    }
    /// Returns the driver, for an [oracle](crate::oracle::Oracle::watch).
    pub fn driver(&self) -> Arc<dyn ExternalMmu> {
        Arc::clone(&self.iotlb) as Arc<dyn ExternalMmu>
    }
    /// Cuts a range of I/O addresses into parts of pages, or returns the first address that no
    /// region has.
    fn parts(&self, iova: u64, len: usize) -> Result<Parts, GuestAddress> {
        let mut parts = Parts::new();
        let mut at = iova;
        let mut left = len;
        while left > 0 {
            let found = locate(&self.regions, GuestAddress(at));
            let (process, here) = found.ok_or(GuestAddress(at))?;
            let here = usize::try_from(here).map_or(left, |here| here.min(left));
            for (page, offset, len) in chunks(process, here) {
                let iova = at;
                parts.push(Part {
                    iova,
                    page,
                    offset,
                    len,
                });
                at = at.wrapping_add(len as GuestUsize);
            }
            left -= here;
        }
        // An address beyond the last one of all is refused, though no byte lies there.
        match iova.checked_add(len as u64) {
            Some(_) => Ok(parts),
            None => Err(GuestAddress(u64::MAX)),
        }
    }
}

/// The parts of a request.
type Parts = SmallVec<[Part; 4]>;

/// The translations of one request, and the leases of their pages, which windows wait for as long
/// as this lives. It stays with its thread.
#[derive(Debug)]
pub struct LeasedIotlb<'l> {
    iotlb: Iotlb,
    /// Set if the IOTLB has one whole page, and is used again.
    page: Option<Key>,
    holders: SmallVec<[Holder<'l>; 4]>,
}

impl<'l> LeasedIotlb<'l> {
    fn new(
        holders: SmallVec<[Holder<'l>; 4]>,
        access: Permissions,
    ) -> Result<LeasedIotlb<'l>, Error> {
        let page = match holders.as_slice() {
            [one] => Key::of(one.lease()),
            _ => None,
        };
        let mut iotlb = page.map(page_iotlbs::take).unwrap_or_default();
        for holder in holders.iter().filter(|_| page.is_none()) {
            let lease = holder.lease();
            let (at, len) = (GuestAddress(lease.part.iova), lease.part.len);
            iotlb.set_mapping(at, address_of(lease), len, access)?;
        }
        Ok(Self {
            iotlb,
            page,
            holders,
        })
    }
}

impl Deref for LeasedIotlb<'_> {
    type Target = Iotlb;
    fn deref(&self) -> &Iotlb {
        &self.iotlb
    }
}

impl Drop for LeasedIotlb<'_> {
    fn drop(&mut self) {
        if let Some(page) = self.page {
            page_iotlbs::put_back(page, std::mem::take(&mut self.iotlb));
        }
        for holder in self.holders.drain(..) {
            holder.end_iteration();
        }
    }
}

impl Iommu for ProcessIommu {
    type IotlbGuard<'a> = LeasedIotlb<'a>;

    /// Returns the translations of all pages of the range, which faults bring in.
    ///
    /// # Errors
    ///
    /// `CannotResolve`, with the reason: a page is in no region, or the process has no such access
    /// to it; they are more pages than memory has; the thread has a token that it did not lend; or
    /// it ends, and its locals are gone.
    fn translate(
        &self,
        iova: GuestAddress,
        length: usize,
        access: Permissions,
    ) -> Result<IotlbIterator<LeasedIotlb<'_>>, Error> {
        let cannot = |reason: String| Error::CannotResolve {
            iova_range: IovaRange { base: iova, length },
            reason,
        };
        let pages = length as u64 / PAGE_SIZE;
        if pages > u64::from(self.mm.machine().mem().capacity()) {
            return Err(cannot(format!("{pages} pages are more than memory has")));
        }
        let parts = self.parts(iova.0, length);
        let parts = parts.map_err(|at| cannot(format!("{:#x} is in no region", at.0)))?;
        // A question about no access is one about memory that can be read.
        let walks = access_of(access).unwrap_or(Access::Read);
        let machine = self.mm.machine();
        let got = machine.with_current(|cx| self.iotlb.lease(cx, &self.mm, &parts, walks));
        let got = got.map_err(|why| cannot(why.to_string()))?;
        let given = got.map_err(|why| cannot(why.to_string()))?;
        let given = given.ok_or_else(|| cannot("the thread ends".to_owned()))?;
        let holders = given.into_iter();
        let holders = holders.map(|lease| Holder::new(&self.iotlb.leases, lease));
        let leased = LeasedIotlb::new(holders.collect(), access)?;
        Iotlb::lookup(leased, iova, length, access).map_err(|fails| cannot(format!("{fails:?}")))
    }
}

impl std::fmt::Debug for ProcessIommu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProcessIommu")
            .field("regions", &self.regions)
            .field("leases", &self.leases())
            .finish_non_exhaustive()
    }
}
