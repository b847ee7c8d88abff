//! The invalidation window of an address space: the only way to take rights or pages from
//! page-table entries.
//!
//! Guarantee: while an [`InvalidationWindow`] lives, every external MMU that is registered over
//! the range has dropped its translations there and gets no new ones, but for those that the opener
//! spares (`notifier::Spared`). Entries are cleared, downgraded or replaced through a window alone;
//! filling an empty entry or giving rights back needs none.
//!
//! A window goes through four steps:
//!
//! 1. *Opening.* A [`Lease`] proves that the mappings are stable. The range goes on the board, so
//!    that no driver can admit a translation from here on.
//! 2. *Calling.* Every driver that may have translations of the range is called and drops them. A
//!    driver may sleep if the context is `Sleepable`. The call that opens the window returns when
//!    all of them have done so (`notifier/window.rs`).
//! 3. *Changing.* The operation walks the leaves of the range and changes entries under their
//!    locks.
//! 4. *Ending.* Dropping the window, or [`close`](InvalidationWindow::close), notifies each
//!    driver that was called.
//!
//! | file | holds |
//! | --- | --- |
//! | this one | [`Lease`], which opens a window; [`InvalidationWindow`]: the walk over its leaves |
//! | `entry` | [`PteTxn`] and [`PteSlot`]: entries under the lock of their leaf |
//! | `leave` | the mark of a page that moves, in the place of its mapping |
//! | `zap` | dropping all pages of a range |
//! | `split` | splitting huge pages at the edges of a range, in a nested window |

mod entry;
mod leave;
mod split;
mod zap;

pub use entry::{PteSlot, PteTxn};
pub(in crate::mm) use leave::{AsOne, leave, no_more_exclusive};
pub(in crate::mm) use zap::{Marks, Zap, restore_reserve};

use super::{
    page_table::{Bounds, LeafAt, Pin},
    space::Mm,
};
use crate::{
    addr::{Vpn, VpnRange},
    ctx::{Atomic, Below, Context, Cx, Rank, Sleepable, rank},
    notifier::{Event, FlushPanics, Flusher, OpenWindow, Reason, WouldBlock},
};
use std::{cell::Cell, convert::Infallible};

/// The right to open invalidation windows: it proves that a lock is held which keeps the mappings
/// of one address space stable.
///
/// The context says whether drivers may sleep in the window: `Sleepable` or `Atomic`.
///
/// A window borrows the lease, and the lease the lock. So the mappings stay until the window has
/// ended:
///
/// ```compile_fail,E0505
/// use emmu::{addr::VpnRange, mm::MmapReadGuard, notifier::Event};
///
/// fn too_early(mut guard: MmapReadGuard<'_>, range: VpnRange) {
///     let mut lease = guard.lease();
///     let window = lease.window(range, Event::Clear);
///     drop(guard); // another thread could unmap the range
///     window.close();
/// }
/// ```
pub struct Lease<'l, R: Rank, C: Context> {
    pub(in crate::mm) mm: &'l Mm,
    pub(in crate::mm) cx: Cx<'l, R, C>,
}

/// Proof that every external MMU has dropped its translations of a range, and cannot get new ones
/// while this lives.
///
/// Entries lose pages and rights between its beginning and its end:
///
/// ```
/// use emmu::{ctx::Sleepable, mm::InvalidationWindow};
///
/// fn drop_all(mut window: InvalidationWindow<'_, Sleepable>) {
///     window.for_each_leaf(|entries| entries.for_each(|entry| drop(entry.clear())));
///     window.close();
/// }
/// ```
///
/// It cannot end while an entry is locked, which could change after the end:
///
/// ```compile_fail,E0505
/// use emmu::{addr::Vpn, ctx::Sleepable, mm::InvalidationWindow};
///
/// fn drop_page(mut window: InvalidationWindow<'_, Sleepable>, page: Vpn) {
///     window.lock_ptes(page, |entries| {
///         window.close();
///         entries.slot(page).map(|entry| drop(entry.clear()));
///     });
/// }
/// ```
#[must_use = "the window ends when this is dropped"]
pub struct InvalidationWindow<'w, C: Context> {
    mm: &'w Mm,
    core: OpenWindow<'w, C>,
    /// Dropped after the end of the window.
    _panics: FlushPanics<'w>,
}

impl<'l, R: Rank> Lease<'l, R, Sleepable> {
    /// Lends the lease for a shorter time.
    #[inline(always)]
    pub(in crate::mm) fn again(&mut self) -> Lease<'_, R, Sleepable> {
        Lease {
            mm: self.mm,
            cx: self.cx.reborrow(),
        }
    }
    /// Opens a window over `range`. Drivers may sleep in it, and none can refuse it.
    ///
    /// Returns once every driver has dropped its translations of the range.
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::{addr::{Vpn, VpnRange}, extmmu::Recorder, notifier::Event};
    /// # let machine = emmu::Machine::new(Default::default());
    /// # let mut thread = machine.enter()?;
    /// # let mut cx = thread.cx();
    /// # let mm = emmu::Mm::new(&machine);
    ///
    /// let (recorder, registration) = mm.register(&mut cx, Recorder::new);
    /// let mut guard = mm.lock_shared(&mut cx);
    /// let mut lease = guard.lease();
    /// let window = lease.window(VpnRange::single(Vpn(16)), Event::Clear);
    /// assert_eq!((recorder.take().len(), mm.windows_open()), (1, 1));
    /// window.close();
    /// assert_eq!(mm.windows_open(), 0);
    /// drop(guard);
    /// mm.unregister(&mut cx, registration);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline(always)]
    pub fn window(&mut self, range: VpnRange, event: Event) -> InvalidationWindow<'_, Sleepable>
    where
        R: Below<rank::Window>,
    {
        self.again().into_window(range, event)
    }
    /// Opens a window over `range` that lives as long as the lease could.
    #[inline(always)]
    pub(in crate::mm) fn into_window(
        self,
        range: VpnRange,
        reason: impl Into<Reason>,
    ) -> InvalidationWindow<'l, Sleepable>
    where
        R: Below<rank::Window>,
    {
        let Ok(core) = OpenWindow::<Sleepable>::open(&self.mm.notifiers, self.cx, range, reason);
        InvalidationWindow::new(self.mm, core)
    }
    /// Opens a window over `range`, runs `f` in it and ends it. Unlike that of
    /// [`window`](Self::window), this window cannot be leaked.
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::{PAGE_SIZE, addr::{Vpn, VpnRange}, mm::MmapArgs, notifier::Event};
    /// # let machine = emmu::Machine::new(Default::default());
    /// # let mut thread = machine.enter()?;
    /// # let mut cx = thread.cx();
    /// # let mm = emmu::Mm::new(&machine);
    ///
    /// let at = mm.mmap(&mut cx, &MmapArgs::anonymous(PAGE_SIZE))?;
    /// mm.store(&mut cx, at, 7)?;
    /// let page = Vpn::containing(at);
    /// let mut guard = mm.lock_shared(&mut cx);
    /// let was_present = guard.lease().with_window(page.into(), Event::Clear, |window| {
    ///     window.lock_ptes(page, |ptes| ptes.slot(page).and_then(|slot| slot.clear()).is_some())
    /// });
    /// drop(guard);
    /// assert_eq!(was_present, Some(true));
    /// assert_eq!(mm.load(&mut cx, at)?, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn with_window<T>(
        &mut self,
        range: VpnRange,
        event: Event,
        f: impl FnOnce(&mut InvalidationWindow<'_, Sleepable>) -> T,
    ) -> T
    where
        R: Below<rank::Window>,
    {
        f(&mut self.window(range, event))
    }
}

impl<R: Rank, C: Context> Lease<'_, R, C> {
    /// Lends the lease for windows in which nothing may block.
    pub fn non_blocking(&mut self) -> Lease<'_, R, Atomic> {
        Lease {
            mm: self.mm,
            cx: self.cx.non_blocking(),
        }
    }
    /// Opens a window over `range` without blocking.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`] if a driver would have to sleep. The drivers that had agreed by then have
    /// been notified that the window ended; no window is open.
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::{addr::VpnRange, extmmu::xpmem::{Owner, OwnerConfig}, notifier::Event};
    /// # let machine = emmu::Machine::new(Default::default());
    /// # let mut thread = machine.enter()?;
    /// # let mut cx = thread.cx();
    /// # let mm = emmu::Mm::new(&machine);
    ///
    /// // This driver waits for answers of its importers, so it refuses.
    /// let (_owner, registration) = Owner::attach(&mut cx, &mm, OwnerConfig::default());
    /// let mut guard = mm.lock_shared(&mut cx);
    /// assert!(guard.lease().try_window(VpnRange::TASK, Event::Clear).is_err());
    /// assert_eq!(mm.windows_open(), 0);
    /// drop(guard);
    /// mm.unregister(&mut cx, registration);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn try_window(
        &mut self,
        range: VpnRange,
        event: Event,
    ) -> Result<InvalidationWindow<'_, Atomic>, WouldBlock>
    where
        R: Below<rank::Window>,
    {
        let cx = self.cx.non_blocking();
        let core = OpenWindow::<Atomic>::open(&self.mm.notifiers, cx, range, event)?;
        Ok(InvalidationWindow::new(self.mm, core))
    }
}

impl<R: Rank + Below<rank::Folio>> Lease<'_, R, Sleepable> {
    /// Notifies the drivers of exported frames of each frame that lost its mappings. Due once a
    /// window that dropped mappings has ended.
    #[inline]
    pub(in crate::mm) fn settle_exports(&mut self) {
        self.mm.machine().host().settle_exports(&mut self.cx);
    }
}

impl<'w> InvalidationWindow<'w, Sleepable> {
    /// The token for calls inside the window; it may sleep.
    pub fn cx(&mut self) -> Cx<'_, rank::Window, Sleepable> {
        self.core.split().1
    }
    /// Opens a window over `range` inside of this one.
    pub(in crate::mm) fn nested(
        &mut self,
        range: VpnRange,
        event: Event,
    ) -> InvalidationWindow<'_, Sleepable> {
        let mm = self.mm;
        let Ok(core) = self.core.nested(&mm.notifiers, range, event);
        InvalidationWindow::new(mm, core)
    }
}

impl<'w> InvalidationWindow<'w, Atomic> {
    /// The token for calls inside the window; it may not sleep.
    pub fn cx(&mut self) -> Cx<'_, rank::Window, Atomic> {
        self.core.split().1
    }
}

impl<'w, C: Context> InvalidationWindow<'w, C> {
    #[inline(always)]
    fn new(mm: &'w Mm, core: OpenWindow<'w, C>) -> Self {
        Self {
            mm,
            core,
            _panics: mm.tlbs.panics(),
        }
    }
    /// The address space.
    pub(in crate::mm) fn mm(&self) -> &'w Mm {
        self.mm
    }
    /// The pages that the window covers.
    pub fn range(&mut self) -> VpnRange {
        self.core.split().0.range()
    }
    /// Visits every leaf table in the window, ascending, with its lock held. Nothing can sleep
    /// inside.
    pub fn for_each_leaf(&mut self, f: impl FnMut(&mut PteTxn<'_>)) {
        let range = self.range();
        self.for_each_leaf_in(range, f);
    }
    /// Visits every leaf table of `range`, clipped to the window, ascending, with its lock held.
    pub(in crate::mm) fn for_each_leaf_in(
        &mut self,
        range: VpnRange,
        mut f: impl FnMut(&mut PteTxn<'_>),
    ) {
        let Ok(()) = self.leaves_in(range, |txn| {
            f(txn);
            Ok::<(), Infallible>(())
        });
    }
    /// Visits every leaf table of `range`, clipped to the window, with its lock held; stops at the
    /// first error.
    pub(in crate::mm) fn leaves_in<E>(
        &mut self,
        range: VpnRange,
        f: impl FnMut(&mut PteTxn<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.leaves_or(range, |_, _, _, _| Ok(false), f)
    }
    /// Visits the leaf tables of `range` as [`leaves_in`](Self::leaves_in) does, but first offers
    /// each, unlocked and perhaps shared, to `instead`: a leaf for which that returns true is done,
    /// and is flushed.
    pub(in crate::mm) fn leaves_or<E>(
        &mut self,
        range: VpnRange,
        mut instead: impl FnMut(VpnRange, LeafAt<'_>, Pin<'_>, Flusher<'_>) -> Result<bool, E>,
        mut f: impl FnMut(&mut PteTxn<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mm = self.mm;
        let (coverage, mut cx) = self.core.split();
        let Some(range) = coverage.range().intersect(range) else {
            return Ok(());
        };
        let mut pinned = cx.pin();
        let (guard, mut cx) = pinned.parts();
        let pin = mm.table.pin(guard);
        mm.table.leaves(range, pin, |part, leaf| {
            let mut flusher = Flusher::new(&mm.tlbs, cx.descend());
            if instead(part, leaf, pin, flusher.reborrow())? {
                let _no_frame_goes = flusher.flush(part);
                return Ok(());
            }
            // A leaf that was taken out of its slot meanwhile has no entries.
            let Some(leaf) = leaf.lock() else {
                return Ok(());
            };
            f(&mut PteTxn {
                leaf,
                mem: mm.machine().mem(),
                part,
                pin,
                flusher,
                owes: Cell::new(false),
            })
        })
    }
    /// Runs `f` on the locked leaf that holds the entry of `vpn`; returns `None` if the window does
    /// not cover that page or there is no table.
    pub fn lock_ptes<T>(&mut self, vpn: Vpn, f: impl FnOnce(&mut PteTxn<'_>) -> T) -> Option<T> {
        if !self.range().contains(vpn) {
            return None;
        }
        let mut f = Some(f);
        let mut out = None;
        self.for_each_leaf_in(VpnRange::single(vpn), |txn| {
            out = f.take().map(|f| f(txn));
        });
        out
    }
    /// Frees the tables of an emptied range.
    ///
    /// Pages and tables go before the window ends: a driver that drops its references only at the
    /// end still finds them gone.
    pub(in crate::mm) fn free_tables(&mut self, range: VpnRange, bounds: Bounds) {
        let mm = self.mm;
        let (_, mut cx) = self.core.split();
        let mut pinned = cx.pin();
        let (guard, mut cx) = pinned.parts();
        mm.table.free_range(range, bounds, mm.table.pin(guard));
        // The tables are unhooked, and the pin keeps them until a device's walk cannot meet them.
        let _no_frame_goes = Flusher::new(&mm.tlbs, cx.descend()).flush(range);
    }
    /// Flushes `range`, of whose entries some have moved.
    pub(in crate::mm) fn flush(&mut self, range: VpnRange) {
        let mm = self.mm;
        let (_, mut cx) = self.core.split();
        let mut cx = cx.non_blocking();
        let _no_frame_goes = Flusher::new(&mm.tlbs, cx.descend()).flush(range);
    }
    /// Ends the window, as dropping it does.
    #[inline(always)]
    pub fn close(self) {}
}
