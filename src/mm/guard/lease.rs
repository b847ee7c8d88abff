//! [`Lease`]: the right to open invalidation windows on one address space.

use crate::mm::{space::Mm, window::InvalidationWindow};
use crate::{
    addr::VpnRange,
    ctx::{Atomic, Below, Context, Cx, Rank, Sleepable, rank},
    notifier::{Event, OpenWindow, WouldBlock},
};

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

impl<R: Rank + Below<rank::Folio>> Lease<'_, R, Sleepable> {
    /// Notifies the drivers of exported frames of each frame that lost its mappings. Due once a
    /// window that dropped mappings has ended.
    #[inline]
    pub(in crate::mm) fn settle_exports(&mut self) {
        self.mm.machine().host().settle_exports(&mut self.cx);
    }
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
        event: Event,
    ) -> InvalidationWindow<'l, Sleepable>
    where
        R: Below<rank::Window>,
    {
        let Ok(core) = OpenWindow::<Sleepable>::open(&self.mm.notifiers, self.cx, range, event);
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
