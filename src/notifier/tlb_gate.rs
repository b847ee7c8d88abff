//! The TLB of a device that walks the page table itself.
//!
//! Guarantee: a translation in the TLB agrees with the page table, or it is flushed before its
//! frame goes. A walk and the flush take the same lock. If the walk comes first, the flush removes
//! the translation. If the flush comes first, the walk reads the entry after its change.

use super::{
    outcome::Access,
    secondary_tlb::{SecondaryTlbs, TlbSeat, Walked, remove},
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
        let _unused = cx;
        let _locked = self.pages();
        f(&mut self.state.lock())
    }
    /// Returns a page of the locked TLB, unless that may be stale.
    fn cached_page<'t>(&self, pages: &'t BTreeMap<Vpn, Walked>, at: Vpn) -> Option<&'t Walked> {
        pages.get(&at).filter(|_| !self.seat.phase.is_shut())
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
        let page = self.cached_page(&pages, at)?;
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
        let page = self.cached_page(&pages, at).filter(|page| page.writable)?;
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
        pages.insert(at, page);
        true
    }
    /// Returns true if the gate is of a device of this address space.
    pub(crate) fn is_of(&self, tlbs: &SecondaryTlbs) -> bool {
        tlbs.gave(&self.seat)
    }
}
