//! The TLB of a device that walks the page table itself.
//!
//! Guarantee: a translation in the TLB agrees with the page table, or it is flushed before its
//! frame goes. A walk and the flush take the same lock. If the walk comes first, the flush removes
//! the translation. If the flush comes first, the walk reads the entry after its change.

#[cfg(feature = "testkit")]
use super::test_hook::Moment;
use super::{
    observer::AUDIT_TIMEOUT,
    outcome::Access,
    secondary_tlb::{SecondaryTlbs, TlbSeat, Walked, remove},
    tlb_pages::TlbPages,
    translation::Translation,
};
use crate::{
    addr::{Pfn, Vpn, VpnRange},
    ctx::{AtomicCallbackCx, Below, Context, Cx, rank},
    frame::{FrameView, FrameViewMut},
    sync::{Mutex, MutexGuard},
};
use std::collections::BTreeMap;

/// A device's TLB, and its state `T`, behind the lock that a flush takes.
///
/// # Examples
///
/// ```
/// use emmu::{driver::*, mm::{Advice, MmapArgs}};
/// use std::sync::Arc;
///
/// /// An IOMMU that shares the table of the process, with a TLB in the device behind it.
/// struct Iommu(TlbGate<Vec<VpnRange>>);
///
/// impl SecondaryTlb for Iommu {
///     fn flush(&self, cx: AtomicCallbackCx<'_>, range: VpnRange) {
///         self.0.flush(cx, range, |flushed, range| flushed.push(range));
///     }
/// }
/// # let machine = emmu::Machine::new(Default::default());
/// # let mut thread = machine.enter()?;
/// # let mut cx = thread.cx();
/// # let mm = emmu::Mm::new(&machine);
///
/// let new = |seat| Arc::new(Iommu(TlbGate::new(seat, Vec::new())));
/// let (iommu, registration) = mm.register_tlb(&mut cx, new);
/// let at = mm.mmap(&mut cx, &MmapArgs::anonymous(PAGE_SIZE))?;
/// let page = Vpn::containing(at);
///
/// // Nothing is present: the device sends a page request, and walks again.
/// assert!(!mm.walk(&mut cx, &iommu.0, page, Access::Write)?);
/// mm.serve_page_request(&mut cx, page, Access::Write)?;
/// assert!(mm.walk(&mut cx, &iommu.0, page, Access::Write)?);
/// iommu.0.write(&mut cx, page, |mut frame| frame.write(0, b"dma")).expect("cached");
/// assert_eq!(mm.load(&mut cx, at)?, b'd');
///
/// // The page goes. The TLB is flushed before the frame does.
/// mm.madvise(&mut cx, at, PAGE_SIZE, Advice::DontNeed)?;
/// assert!(iommu.0.read(&mut cx, page, |frame| frame.read_u8(0)).is_none());
/// registration.unregister(&mut cx);
/// # mm.exit(&mut cx);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct TlbGate<T> {
    seat: TlbSeat,
    /// Locked after the pages of the registration.
    state: Mutex<T>,
}

impl<T> TlbGate<T> {
    /// Makes the TLB of a registration, empty.
    pub fn new(seat: TlbSeat, state: T) -> Self {
        let state = Mutex::new(state);
        Self { seat, state }
    }
    /// Locks the TLB.
    fn pages(&self) -> MutexGuard<'_, BTreeMap<Vpn, Walked>> {
        self.seat.phase.pages.lock()
    }
    /// Removes the pages of `range`, and runs `f` on the device's state under the lock: it flushes
    /// the TLBs of devices behind this one.
    ///
    /// The device calls it in its [`SecondaryTlb::flush`](super::SecondaryTlb::flush).
    ///
    /// The pages are gone before `f` runs. A device behind the TLB that fills its own from this one
    /// must be flushed last: else it would fill it again from here.
    pub fn flush(
        &self,
        cx: AtomicCallbackCx<'_>,
        range: VpnRange,
        f: impl FnOnce(&mut T, VpnRange),
    ) {
        let _unused = cx;
        let mut pages = self.pages();
        remove(&mut pages, range);
        f(&mut self.state.lock(), range);
    }
    /// Removes the pages of `range` at the device's own wish.
    pub fn evict<R: Below<rank::Gate>, C: Context>(&self, cx: &mut Cx<'_, R, C>, range: VpnRange) {
        let _unused = cx;
        remove(&mut self.pages(), range);
    }
    /// Runs `f` on the device's state under the lock.
    pub fn with_state<R: Below<rank::Gate>, C: Context, V>(
        &self,
        cx: &mut Cx<'_, R, C>,
        f: impl FnOnce(&mut T) -> V,
    ) -> V {
        self.with(cx, |state, _| f(state))
    }
    /// Runs `f` on the device's state and the pages under the lock: for a device with TLBs of its
    /// own behind this one, which it fills from here with [`TlbEntry`](super::TlbEntry).
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::{driver::*, mm::{Advice, MmapArgs}};
    /// use std::{collections::BTreeMap, sync::Arc};
    ///
    /// /// An IOMMU, and the TLB of one device behind it.
    /// struct Iommu(TlbGate<BTreeMap<Vpn, TlbEntry>>);
    ///
    /// impl SecondaryTlb for Iommu {
    ///     fn flush(&self, cx: AtomicCallbackCx<'_>, range: VpnRange) {
    ///         self.0.flush(cx, range, |copies, range| copies.retain(|at, _| !range.contains(*at)));
    ///     }
    /// }
    /// # let machine = emmu::Machine::new(Default::default());
    /// # let mut thread = machine.enter()?;
    /// # let mut cx = thread.cx();
    /// # let mm = emmu::Mm::new(&machine);
    ///
    /// let new = |seat| Arc::new(Iommu(TlbGate::new(seat, BTreeMap::new())));
    /// let (iommu, _registration) = mm.register_tlb(&mut cx, new);
    /// let at = mm.mmap(&mut cx, &MmapArgs::anonymous(PAGE_SIZE))?;
    /// mm.store(&mut cx, at, 7)?;
    /// let page = Vpn::containing(at);
    /// assert!(mm.walk(&mut cx, &iommu.0, page, Access::Read)?);
    ///
    /// // The device asks the IOMMU once, and uses its copy from then on.
    /// iommu.0.with(&mut cx, |copies, pages| {
    ///     copies.extend(pages.get(page).map(|entry| (page, entry)));
    /// });
    /// iommu.0.evict(&mut cx, page.into());
    /// let read = iommu.0.with(&mut cx, |copies, pages| {
    ///     Some(pages.view(copies.get(&page)?)?.read_u8(0))
    /// });
    /// assert_eq!(read, Some(7));
    ///
    /// mm.madvise(&mut cx, at, PAGE_SIZE, Advice::DontNeed)?;
    /// assert!(iommu.0.with(&mut cx, |copies, _| copies.is_empty()));
    /// # mm.exit(&mut cx);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn with<R: Below<rank::Gate>, C: Context, V>(
        &self,
        cx: &mut Cx<'_, R, C>,
        f: impl FnOnce(&mut T, &mut TlbPages<'_>) -> V,
    ) -> V {
        let _unused = cx;
        #[cfg(feature = "testkit")]
        self.seat.list.reached(Moment::Locking);
        let out = {
            let mut pages = self.pages();
            let mut state = self.state.lock();
            f(&mut state, &mut TlbPages::new(&mut pages, &self.seat))
        };
        #[cfg(feature = "testkit")]
        self.seat.list.reached(Moment::Unlocked);
        out
    }
    /// Shows every page that is cached, for an audit
    /// ([`SecondaryTlb::translations`](super::SecondaryTlb::translations)). Returns false if the
    /// lock could not be had within ten seconds.
    pub fn audit(&self, visit: &mut dyn FnMut(Translation)) -> bool {
        self.audited(visit, |_, _| ())
    }
    /// Shows the pages as [`audit`](Self::audit) does, and then lets `more` show the copies that
    /// the device's state has.
    pub fn audited(
        &self,
        visit: &mut dyn FnMut(Translation),
        more: impl FnOnce(&T, &mut dyn FnMut(Translation)),
    ) -> bool {
        let Some(pages) = self.seat.phase.pages.try_lock_for(AUDIT_TIMEOUT) else {
            return false;
        };
        let found = |(&at, page)| self.seat.translation(at, page);
        pages.iter().map(found).for_each(&mut *visit);
        more(&self.state.lock(), visit);
        true
    }
    /// Runs `f` on the frame of a page that is cached, under the lock; `None` if it is not, once
    /// the registration has ended, and once a flush of the device panicked.
    pub fn read<R: Below<rank::Gate>, C: Context, V>(
        &self,
        cx: &mut Cx<'_, R, C>,
        at: Vpn,
        f: impl FnOnce(FrameView<'_>) -> V,
    ) -> Option<V> {
        let _unused = cx;
        let pages = self.pages();
        let page = self.seat.cached(&pages, at)?;
        Some(f(self.seat.mem.view(page.pfn, page.generation)))
    }
    /// Runs `f` on the frame of a page that is cached, for writing; `None` if it is not, or may
    /// only be read.
    pub fn write<R: Below<rank::Gate>, C: Context, V>(
        &self,
        cx: &mut Cx<'_, R, C>,
        at: Vpn,
        f: impl FnOnce(FrameViewMut<'_>) -> V,
    ) -> Option<V> {
        let _unused = cx;
        let pages = self.pages();
        let page = self.seat.cached(&pages, at).filter(|page| page.writable)?;
        Some(f(self.seat.mem.view_mut(page.pfn, page.generation)))
    }
    /// Returns the pages that are cached, ascending, each with its frame and whether it may be
    /// written: for an audit.
    pub fn cached(&self) -> Vec<(Vpn, Pfn, bool)> {
        let page = |(&at, page): (&Vpn, &Walked)| (at, page.pfn, page.writable);
        self.pages().iter().map(page).collect()
    }
    /// Caches the page that `walk` finds at `at` under the lock, if it allows the access. Returns
    /// true if it is cached.
    pub(crate) fn fill(
        &self,
        at: Vpn,
        access: Access,
        walk: impl FnOnce() -> Option<Walked>,
    ) -> bool {
        let mut pages = self.pages();
        if !self.seat.phase.is_alive() {
            return false;
        }
        let allowed = |page: &Walked| access == Access::Read || page.writable;
        let Some(page) = walk().filter(allowed) else {
            return false;
        };
        if let Some(observer) = self.seat.list.observer.get() {
            observer.handed_out(&self.seat.translation(at, &page));
        }
        pages.insert(at, page);
        true
    }
    /// Returns true if the gate is of a device of this address space.
    pub(crate) fn is_of(&self, tlbs: &SecondaryTlbs) -> bool {
        tlbs.gave(&self.seat)
    }
}
