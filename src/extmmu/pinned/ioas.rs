//! An I/O address space: mapping, unmapping, copying, and the domains that have its translations
//! (`drivers/iommu/iommufd/io_pagetable.c`).

use super::{
    access_list::AccessList,
    account::LockedAccount,
    areas::{Area, AreaState, Areas, check_order, last_of},
    domain::{Domain, DomainConfig},
    error::IoasError,
    fill::{Filled, NewAreas, Reservation, empty_domain, empty_domains},
    mistake::PinMistake,
    pages::Pages,
};
use crate::{
    addr::PAGE_SIZE,
    ctx::CallCx,
    mm::Mm,
    notifier::Access,
    sync::{AtomicU64, Despite, Mutex, Ordering, RwLock},
};
use std::sync::Arc;

/// The configuration of an I/O address space.
#[derive(Clone, Debug, Default)]
pub struct IoasConfig {
    /// The account that limits the pages it pins; without one there is no limit.
    pub account: Option<Arc<LockedAccount>>,
    /// A mistake made on purpose, for a test that must find it.
    pub mistake: Option<PinMistake>,
}

/// A map of memory of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoasMap {
    /// The I/O virtual address, in bytes; chosen if `None`.
    pub iova: Option<u64>,
    /// The first byte address in the process.
    pub addr: u64,
    /// The length, in bytes.
    pub len: u64,
    /// The accesses that devices may make.
    pub access: Access,
}

/// Maps I/O virtual addresses to pages that it pins.
///
/// Dropping it unpins all pages, once the domains and accesses are dropped too. Maps call memory
/// objects of the process, which must not use the I/O address space in turn.
#[derive(Debug)]
pub struct Ioas {
    pub(super) areas: Mutex<Areas>,
    /// Held for reading while an area is changed in the domains, so that a domain comes or goes
    /// when each area is either in all domains or in none.
    domains: RwLock<Vec<Arc<Domain>>>,
    pub(super) accesses: AccessList,
    account: Arc<LockedAccount>,
    next_owner: AtomicU64,
    pub(super) mistake: Option<PinMistake>,
}

/// A part of some pages that becomes an area.
struct Piece {
    pages: Arc<Pages>,
    offset: u64,
    len: u64,
}

/// How often an unmapping asks those that pinned pages through an access to let go.
const MOST_ROUNDS: u32 = 100;

impl Ioas {
    /// Creates an I/O address space without areas.
    pub fn new(config: IoasConfig) -> Arc<Self> {
        let unlimited = || Arc::new(LockedAccount::new(u64::MAX));
        Arc::new(Self {
            areas: Mutex::default(),
            domains: RwLock::default(),
            accesses: AccessList::default(),
            account: config.account.unwrap_or_else(unlimited),
            next_owner: AtomicU64::new(1),
            mistake: config.mistake,
        })
    }
    /// Maps memory of a process, and returns the I/O virtual address of its first byte
    /// (`IOMMU_IOAS_MAP`).
    ///
    /// If there is a domain, the pages are faulted in and pinned, and all addresses and lengths are
    /// multiples of 4096. Without one nothing is pinned yet.
    ///
    /// # Errors
    ///
    /// [`IoasError`]; nothing is mapped or pinned then.
    pub fn map(&self, cx: &mut CallCx<'_>, mm: &Arc<Mm>, map: IoasMap) -> Result<u64, IoasError> {
        let IoasMap { addr, len, .. } = map;
        last_of(addr, len)?;
        let writable = map.access == Access::Write;
        let pages = Pages::new(mm, (addr, writable), &self.account, self.mistake);
        let piece = Piece {
            pages: Arc::new(pages),
            offset: 0,
            len,
        };
        self.map_pieces(cx, vec![piece], map.iova, writable)
    }
    /// Maps the pages of `[src, src + len)` of an I/O address space, and returns the I/O virtual
    /// address of the first byte (`IOMMU_IOAS_COPY`). The pages are pinned once for both.
    ///
    /// # Errors
    ///
    /// [`IoasError`]; nothing is mapped then. [`IoasError::NotMapped`]: the source has a hole.
    pub fn copy(
        &self,
        cx: &mut CallCx<'_>,
        from: &Ioas,
        (src, len): (u64, u64),
        iova: Option<u64>,
        access: Access,
    ) -> Result<u64, IoasError> {
        let last = last_of(src, len)?;
        let mut pieces = Vec::new();
        for area in from.areas.lock().covering(src, last)? {
            let (offset, len) = area.part(src, last);
            pieces.push(Piece {
                pages: Arc::clone(&area.pages),
                offset,
                len,
            });
        }
        self.map_pieces(cx, pieces, iova, access == Access::Write)
    }
    fn map_pieces(
        &self,
        cx: &mut CallCx<'_>,
        pieces: Vec<Piece>,
        iova: Option<u64>,
        writable: bool,
    ) -> Result<u64, IoasError> {
        let domains = self.domains.read();
        let align = if domains.is_empty() { 1 } else { PAGE_SIZE };
        let taken = self.take_range(pieces, iova, (writable, align))?;
        let mut filled = Filled::default();
        for area in &taken.areas {
            for domain in &*domains {
                filled.fill(cx, domain, area)?;
            }
        }
        filled.keep();
        Ok(taken.ready())
    }
    /// Takes the range of I/O addresses for areas that are to be filled.
    fn take_range(
        &self,
        pieces: Vec<Piece>,
        iova: Option<u64>,
        (writable, align): (bool, u64),
    ) -> Result<NewAreas<'_>, IoasError> {
        let len = pieces.iter().map(|piece| piece.len).sum();
        let first = pieces.first().ok_or(IoasError::NotMapped(0))?;
        let addr = first.pages.byte(first.offset);
        let mut areas = self.areas.lock();
        let iova = match iova {
            Some(iova) => iova,
            None => areas.choose(addr, len, align)?,
        };
        areas.check(iova, len, align)?;
        for piece in &pieces {
            if writable && !piece.pages.writable {
                return Err(IoasError::ReadOnly(iova));
            }
            // An area that ended inside of a page of I/O addresses would share it with the next.
            let edges = [piece.len, piece.pages.byte(piece.offset)];
            if !edges.into_iter().all(|n| n.is_multiple_of(align)) {
                return Err(IoasError::Unaligned { iova, len });
            }
        }
        let mut at = iova;
        let mut taken = Vec::new();
        for piece in pieces {
            let area = areas.insert(Area {
                iova: at,
                last: at + (piece.len - 1),
                pages: piece.pages,
                offset: piece.offset,
                writable,
                state: AreaState::Changing,
                accesses: 0,
                pinning: 0,
                id: 0,
            });
            at = area.last.wrapping_add(1);
            taken.push(area);
        }
        Ok(NewAreas {
            areas: taken,
            all: &self.areas,
        })
    }
    /// Unmaps the areas in `[iova, iova + len)`, and returns the number of bytes that they had
    /// (`IOMMU_IOAS_UNMAP`).
    ///
    /// Length `u64::MAX` at address 0 means all areas, also none ([`unmap_all`](Self::unmap_all)).
    ///
    /// Those that pinned pages through an access are called first, without a lock, and must give
    /// them up. Then no domain translates the area any more, and then its pages are unpinned. Areas
    /// that others map meanwhile stay.
    ///
    /// # Errors
    ///
    /// [`IoasError::NotMapped`]: an area lies there in part, or none. [`IoasError::NotGivenUp`],
    /// [`IoasError::Busy`]. Areas before the one that fails are unmapped.
    pub fn unmap(&self, iova: u64, len: u64) -> Result<u64, IoasError> {
        match (iova, len) {
            (0, u64::MAX) => self.unmap_all(),
            _ => self.unmap_to(iova, last_of(iova, len)?),
        }
    }
    /// Unmaps all areas, and returns the number of bytes that they had.
    ///
    /// # Errors
    ///
    /// As [`unmap`](Self::unmap), but that there may be no areas.
    pub fn unmap_all(&self) -> Result<u64, IoasError> {
        match self.unmap_to(0, u64::MAX) {
            Err(IoasError::NotMapped(_)) => Ok(0),
            done => done,
        }
    }
    fn unmap_to(&self, iova: u64, last: u64) -> Result<u64, IoasError> {
        // Numbers of areas that come later are larger.
        let newest = match self.mistake {
            Some(PinMistake::TakesLaterAreas) => u64::MAX,
            _ => self.areas.lock().newest(),
        };
        let mut bytes = 0_u64;
        let mut rounds = 0;
        loop {
            let domains = self.domains.read();
            let mut areas = self.areas.lock();
            let next = areas.meeting(iova, last).find(|area| area.id <= newest);
            let Some(area) = next.cloned() else {
                break;
            };
            if area.state == AreaState::Changing {
                return Err(IoasError::Busy(area.iova));
            }
            if area.iova < iova || area.last > last {
                return Err(IoasError::NotMapped(iova));
            }
            let in_use = self.mistake != Some(PinMistake::UnpinsInUse);
            if in_use && (area.accesses > 0 || area.pinning > 0) {
                if rounds == MOST_ROUNDS {
                    areas.set_state(area.iova, AreaState::Ready);
                    return Err(IoasError::NotGivenUp(area.iova));
                }
                areas.set_state(area.iova, AreaState::Refusing);
                drop(areas);
                drop(domains);
                // A pin that is being made ends by itself.
                rounds += u32::from(area.pinning == 0);
                let mut despite = Despite::default();
                let asked = despite.call(|| self.accesses.notify(area.iova, area.len()));
                if asked.is_none() {
                    self.areas.lock().admit(area.iova, area.id);
                }
                despite.resume();
                std::thread::yield_now();
                continue;
            }
            areas.set_state(area.iova, AreaState::Changing);
            drop(areas);
            empty_domains(&domains, &area);
            self.areas.lock().remove(area.iova);
            bytes = bytes.saturating_add(area.len());
            rounds = 0;
        }
        if bytes == 0 {
            return Err(IoasError::NotMapped(iova));
        }
        Ok(bytes)
    }
    /// Attaches a new domain: pins the pages of all areas that none has pinned, and translates
    /// them there (`IOMMU_HWPT_ALLOC`).
    ///
    /// # Errors
    ///
    /// [`IoasError::InUse`]: an area is not aligned to pages, or outside of the aperture; the
    /// errors of pinning. Nothing is attached or pinned then.
    pub fn attach(
        &self,
        cx: &mut CallCx<'_>,
        config: DomainConfig,
    ) -> Result<Arc<Domain>, IoasError> {
        let mut domains = self.domains.write();
        let owner = self.next_owner.fetch_add(1, Ordering::Relaxed);
        let domain = Arc::new(Domain::new(config, owner));
        // No area changes while the list of domains is held for writing.
        let all = &self.areas;
        let reservation = Reservation { owner, all };
        let present = self.reserve_for(&domain)?;
        let mut filled = Filled::default();
        for area in &present {
            filled.fill(cx, &domain, area)?;
        }
        filled.keep();
        reservation.keep();
        domains.push(Arc::clone(&domain));
        Ok(domain)
    }
    /// Reserves the addresses that the domain cannot translate, and returns the areas.
    fn reserve_for(&self, domain: &Domain) -> Result<Vec<Area>, IoasError> {
        let mut areas = self.areas.lock();
        let aligned = |n: u64| n.is_multiple_of(PAGE_SIZE);
        let of_pages =
            |a: &Area| aligned(a.iova) && aligned(a.len()) && aligned(a.pages.byte(a.offset));
        if let Some(area) = areas.all().find(|area| !of_pages(area)) {
            return Err(IoasError::InUse(area.iova));
        }
        let (first, last) = domain.config.aperture;
        check_order(first, last)?;
        let before = first.checked_sub(1).map(|end| (0, end));
        let behind = last.checked_add(1).map(|start| (start, u64::MAX));
        for (start, end) in before.into_iter().chain(behind) {
            areas.reserve(start, end, domain.owner)?;
        }
        Ok(areas.all().cloned().collect())
    }
    /// Detaches a domain: it translates nothing any more, and pages that no other domain or access
    /// uses are unpinned. Does nothing if it is not attached here.
    pub fn detach(&self, domain: &Arc<Domain>) {
        let mut domains = self.domains.write();
        let Some(at) = domains.iter().position(|known| Arc::ptr_eq(known, domain)) else {
            return;
        };
        domains.swap_remove(at);
        let present: Vec<Area> = self.areas.lock().all().cloned().collect();
        for area in &present {
            empty_domain(domain, area);
        }
        self.areas.lock().unreserve(domain.owner);
    }
    /// Reserves the byte addresses `[first, last]`, so that nothing is mapped there, as for the
    /// messages of interrupts.
    ///
    /// # Errors
    ///
    /// [`IoasError::InUse`], [`IoasError::Reversed`].
    pub fn reserve(&self, first: u64, last: u64) -> Result<(), IoasError> {
        self.areas.lock().reserve(first, last, 0)
    }
    /// Sets the ranges `[first, last]` from which addresses are chosen; none means all
    /// (`IOMMU_IOAS_ALLOW_IOVAS`).
    ///
    /// # Errors
    ///
    /// [`IoasError::InUse`]: one is reserved in part; [`IoasError::Reversed`]. The former ranges
    /// stay.
    pub fn allow(&self, ranges: &[(u64, u64)]) -> Result<(), IoasError> {
        self.areas.lock().allow(ranges.to_vec())
    }
    /// Returns the number of pages that are pinned, once for each map that pinned it.
    pub fn pinned(&self) -> u64 {
        let areas = self.areas.lock();
        let mut seen: Vec<*const Pages> = Vec::new();
        let mut sum = 0;
        for area in areas.all() {
            let pages = Arc::as_ptr(&area.pages);
            if !seen.contains(&pages) {
                seen.push(pages);
                sum += area.pages.count();
            }
        }
        sum
    }
    /// Returns true if a domain is attached here.
    pub(super) fn has(&self, domain: &Domain) -> bool {
        let known = self.domains.read();
        known.iter().any(|known| std::ptr::eq(&**known, domain))
    }
    /// Returns an error if `[iova, iova + len)` is not mapped without holes.
    pub(super) fn check_covered(&self, iova: u64, len: u64) -> Result<(), IoasError> {
        let last = last_of(iova, len)?;
        self.areas.lock().covering(iova, last).map(drop)
    }
}

/// No domain that outlives the I/O address space reaches its pages, also not those that a copy of a
/// map keeps pinned.
impl Drop for Ioas {
    fn drop(&mut self) {
        let (areas, domains) = (self.areas.lock(), self.domains.read());
        for area in areas.all() {
            empty_domains(&domains, area);
        }
    }
}
