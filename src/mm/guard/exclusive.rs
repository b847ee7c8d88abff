//! The mmap lock held exclusively: how its holder waits for conflicting operations, and lets others
//! in for a time.
//!
//! An operation first names its pages and waits for conflicts on them. When it comes to a window,
//! in which a driver may sleep, or to a long walk over entries, it leaves a [`Claim`] and lets
//! others in. Readers of its pages wait meanwhile, and so do writers whose extent overlaps the
//! claim; everything else goes on (`docs/adr/0009-the-mmap-lock-has-lanes.md`).

use crate::mm::{
    lock::{Claim, Ranges, WriteGuard},
    space::Mm,
    vma::layout::Layout,
    window::Lease,
};
use crate::{
    addr::VpnRange,
    ctx::{Below, Cx, FaultCx, Sleepable, rank},
};

/// The mmap lock held exclusively: the holder may change VMAs, and opens windows with a [`Lease`].
pub struct MmapWriteGuard<'g> {
    pub(in crate::mm) mm: &'g Mm,
    pub(in crate::mm) layout: WriteGuard<'g, Layout>,
    pub(in crate::mm) cx: FaultCx<'g>,
    /// The pages that the operation works on; empty if it never gives exclusivity up.
    pages: Ranges,
    /// `pages` and the VMAs that contain or touch them: all that the operation can split or merge.
    /// Empty until another operation has to be kept off them.
    extent: Ranges,
}

/// The rest of an operation after it let others in, which decides the pages that its claim covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::mm) enum AfterYield {
    /// The operation goes on changing VMAs: others must not change those that it can split or
    /// merge.
    KeepsEditing,
    /// The operation changes no more VMAs: others must only keep off its pages.
    OnlyPages,
}

/// A walk over more pages than this lets others in even if no driver may sleep.
const LONG: u64 = 64;

impl Mm {
    /// Takes the mmap lock exclusively, and keeps it so: waits for every other operation, and none
    /// goes on before the guard is dropped.
    ///
    /// # Panics
    ///
    /// If the token is of a thread that entered another machine.
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::{addr::VpnRange, extmmu::{Recorded, Recorder}, notifier::Event};
    /// # let machine = emmu::Machine::new(Default::default());
    /// # let mut thread = machine.enter()?;
    /// # let mut cx = thread.cx();
    /// # let mm = emmu::Mm::new(&machine);
    ///
    /// let mut guard = mm.lock_exclusive(&mut cx);
    /// // No operation runs between the registration and the window.
    /// let (recorder, registration) = guard.register(Recorder::new);
    /// guard.lease().with_window(VpnRange::TASK, Event::Clear, |_| ());
    /// guard.unregister(registration);
    /// assert_eq!(recorder.take(), [Recorded::Window(VpnRange::TASK)]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn lock_exclusive<'g, R: Below<rank::Mmap>>(
        &'g self,
        cx: &'g mut Cx<'_, R, Sleepable>,
    ) -> MmapWriteGuard<'g> {
        let mut g = self.lock_exclusive_some(cx);
        g.claim_all();
        g
    }
    /// Takes the mmap lock exclusively for an operation that names its pages with
    /// [`wait_for_conflicts`](MmapWriteGuard::wait_for_conflicts) before it changes a VMA.
    /// Operations on other memory may be under way.
    #[inline]
    pub(in crate::mm) fn lock_exclusive_some<'g, R: Below<rank::Mmap>>(
        &'g self,
        cx: &'g mut Cx<'_, R, Sleepable>,
    ) -> MmapWriteGuard<'g> {
        self.check_token(cx);
        MmapWriteGuard::new(self, self.layout.write(), cx.descend())
    }
}

impl MmapWriteGuard<'_> {
    /// Gives the right to open windows.
    pub fn lease(&mut self) -> Lease<'_, rank::Mmap, Sleepable> {
        Lease {
            mm: self.mm,
            cx: self.cx.reborrow(),
        }
    }
}

impl<'g> MmapWriteGuard<'g> {
    #[inline]
    fn new(mm: &'g Mm, layout: WriteGuard<'g, Layout>, cx: FaultCx<'g>) -> Self {
        Self {
            mm,
            layout,
            cx,
            pages: Ranges::new(),
            extent: Ranges::new(),
        }
    }
}

impl MmapWriteGuard<'_> {
    /// Names the pages that the operation works on, and returns true if no other operation works on
    /// them or on a VMA that contains or touches them.
    ///
    /// Otherwise waits for a change and returns false. Others changed VMAs meanwhile, so the caller
    /// looks at the layout again and repeats the call.
    #[inline]
    pub(in crate::mm) fn wait_for_conflicts(&mut self, pages: &[VpnRange]) -> bool {
        self.pages = Ranges::from_slice(pages);
        self.extent.clear();
        self.layout.is_only_one() || self.wait_for_others()
    }
    #[cold]
    fn wait_for_others(&mut self) -> bool {
        self.extent = self.layout.extent_of(&self.pages);
        self.layout.wait_for_conflicts(&self.pages, &self.extent)
    }
    /// Names `range` as the operation's pages and waits until no other operation conflicts. For an
    /// operation whose pages do not depend on the layout.
    #[inline]
    pub(in crate::mm) fn claim_range(&mut self, range: VpnRange) {
        while !self.wait_for_conflicts(&[range]) {}
    }
    /// Waits for every other operation. The guard never gives exclusivity up afterwards.
    pub(in crate::mm) fn claim_all(&mut self) {
        self.claim_range(VpnRange::ALL);
        self.pages.clear();
    }
    /// Returns true if others should be let in: the operation named its pages, and a driver may
    /// sleep or a walk covers more than a few pages.
    #[inline]
    pub(in crate::mm) fn should_yield(&self, pages: u64) -> bool {
        let sleeps = || self.mm.notifiers.is_made() || self.mm.machine().mem().has_exported();
        !self.pages.is_empty() && (pages > LONG || sleeps())
    }
    /// Returns true if another operation has claimed pages of `range`.
    pub(in crate::mm) fn claimed(&self, range: VpnRange) -> bool {
        let mut held = self.layout.claims().flat_map(|claim| &claim.no_writers);
        held.any(|held| held.overlaps(range))
    }
    #[cold]
    fn claim(&mut self, then: AfterYield, also: &[VpnRange]) -> Claim {
        let mut no_readers = self.pages.clone();
        no_readers.extend_from_slice(also);
        let mut no_writers = no_readers.clone();
        if then == AfterYield::KeepsEditing {
            if self.extent.is_empty() {
                self.extent = self.layout.extent_of(&self.pages);
            }
            no_writers.extend_from_slice(&self.extent);
        }
        Claim {
            no_readers,
            no_writers,
        }
    }
    /// Runs `f`, which opens windows or walks over `pages` pages, and lets others in meanwhile if
    /// [`should_yield`](Self::should_yield) says so. The operation's own pages and those of `also`
    /// stay claimed.
    pub(in crate::mm) fn yield_while<T>(
        &mut self,
        pages: u64,
        then: AfterYield,
        also: &[VpnRange],
        f: impl FnOnce(Lease<'_, rank::Mmap, Sleepable>) -> T,
    ) -> T {
        self.yield_if(self.should_yield(pages), then, also, f)
    }
    /// Runs `f` as [`yield_while`](Self::yield_while) does, where the caller has asked if others
    /// should be let in.
    #[inline]
    pub(in crate::mm) fn yield_if<T>(
        &mut self,
        others: bool,
        then: AfterYield,
        also: &[VpnRange],
        f: impl FnOnce(Lease<'_, rank::Mmap, Sleepable>) -> T,
    ) -> T {
        let claim = others.then(|| self.claim(then, also));
        let mut lease = Lease {
            mm: self.mm,
            cx: self.cx.reborrow(),
        };
        let work = || {
            let out = f(lease.again());
            lease.settle_exports();
            out
        };
        match claim {
            Some(claim) => self.layout.yield_while(claim, work),
            None => work(),
        }
    }
    /// Runs `f`, which reads the layout and may open windows over the operation's own pages, and
    /// lets readers in meanwhile if a driver may sleep. Other writers wait.
    pub(in crate::mm) fn yield_while_reading<T>(
        &mut self,
        f: impl FnOnce(&Layout, Lease<'_, rank::Mmap, Sleepable>) -> T,
    ) -> T {
        let claim = self
            .should_yield(0)
            .then(|| self.claim(AfterYield::KeepsEditing, &[]));
        let lease = Lease {
            mm: self.mm,
            cx: self.cx.reborrow(),
        };
        match claim {
            Some(claim) => self
                .layout
                .yield_while_shared(claim, |layout| f(layout, lease)),
            None => f(&self.layout, lease),
        }
    }
}

impl std::fmt::Debug for MmapWriteGuard<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MmapWriteGuard").finish_non_exhaustive()
    }
}
