//! The mmap lock and what holding it entitles to.
//!
//! A [`Lease`] says that a lock is held which keeps the mappings of *this* address space stable; it is the right to
//! open invalidation windows on it. Only the guards below give one.
//!
//! An operation holds the lock exclusively while it changes VMAs, which takes long for nobody. Before it opens a window or
//! walks over many entries it gives exclusivity up but for its own pages ([`MmapWriteGuard::yield_while`]), so that a driver that
//! sleeps holds up these pages alone. What only drops pages leaves the lock altogether and pins them ([`MmapPin`]).

use super::{
    fault::deferred::Deferral,
    lock::{Claim, Pinned, Ranges, ReadGuard, WriteGuard},
    space::Mm,
    vma::layout::Layout,
    window::InvalidationWindow,
};
use crate::ctx::FaultCx;

use crate::{
    addr::VpnRange,
    ctx::{Atomic, Below, Context, Cx, Rank, Sleepable, rank},
    notifier::{Event, OpenWindow, WouldBlock},
};

/// The mmap lock is held shared: faults run, the layout stands still.
pub struct MmapReadGuard<'g> {
    pub(super) mm: &'g Mm,
    pub(super) layout: ReadGuard<'g, Layout>,
    pub(super) cx: FaultCx<'g>,
}

/// The mmap lock is held exclusively.
pub struct MmapWriteGuard<'g> {
    pub(super) mm: &'g Mm,
    pub(super) layout: WriteGuard<'g, Layout>,
    pub(super) cx: FaultCx<'g>,
    /// The pages that the operation works on; none: it never gives exclusivity up.
    own: Ranges,
    /// These, and the VMAs that they are parts of or touch, as soon as somebody wants to know.
    reach: Ranges,
}

/// The mmap lock is not held, but nobody changes the mappings of some pages.
pub(super) struct MmapPin<'m> {
    mm: &'m Mm,
    _kept: Pinned<'m, Layout>,
}

/// What an operation does after it let others in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AfterYield {
    /// It goes on changing VMAs: others do not change those that it may touch.
    KeepsEditing,
    /// It is done with the VMAs.
    OnlyPages,
}

/// More pages than this are not walked over with everybody waiting.
const LONG: u64 = 64;

/// A lock that keeps the mappings of `mm` stable is held: the right to open windows on it.
pub struct Lease<'l, R: Rank, C: Context> {
    pub(super) mm: &'l Mm,
    pub(super) cx: Cx<'l, R, C>,
}

/// Layout and lease at once: what a fault needs, from either guard.
pub(super) struct FaultScope<'h> {
    pub(super) layout: &'h Layout,
    pub(super) lease: Lease<'h, rank::Mmap, Sleepable>,
    /// Whether the lock can be left for a window.
    pub(super) later: Deferral,
}

impl<'h> FaultScope<'h> {
    fn new(layout: &'h Layout, lease: Lease<'h, rank::Mmap, Sleepable>) -> Self {
        let later = Deferral::Never;
        Self {
            layout,
            lease,
            later,
        }
    }
}

impl Mm {
    /// Takes the mmap lock shared.
    ///
    /// # Panics
    ///
    /// If the token is of a thread that entered another machine.
    pub fn lock_shared<'g, R: Below<rank::Mmap>>(
        &'g self,
        cx: &'g mut Cx<'_, R, Sleepable>,
    ) -> MmapReadGuard<'g> {
        self.lock_shared_over(cx, Some(VpnRange::ALL))
    }
    /// The same to work on the pages of `range` alone, or to look at the layout alone: an operation that is at work on other
    /// pages is not waited for.
    #[inline]
    pub(super) fn lock_shared_over<'g, R: Below<rank::Mmap>>(
        &'g self,
        cx: &'g mut Cx<'_, R, Sleepable>,
        range: Option<VpnRange>,
    ) -> MmapReadGuard<'g> {
        self.check_token(cx);
        MmapReadGuard {
            mm: self,
            layout: self.layout.read(range),
            cx: cx.descend(),
        }
    }
    /// Takes the mmap lock exclusively.
    ///
    /// # Panics
    ///
    /// If the token is of a thread that entered another machine.
    pub fn lock_exclusive<'g, R: Below<rank::Mmap>>(
        &'g self,
        cx: &'g mut Cx<'_, R, Sleepable>,
    ) -> MmapWriteGuard<'g> {
        let mut g = self.lock_exclusive_some(cx);
        g.settle_alone();
        g
    }
    /// The same for an operation that says with [`settle`](MmapWriteGuard::settle) which pages it works on.
    pub(super) fn lock_exclusive_some<'g, R: Below<rank::Mmap>>(
        &'g self,
        cx: &'g mut Cx<'_, R, Sleepable>,
    ) -> MmapWriteGuard<'g> {
        self.check_token(cx);
        MmapWriteGuard::new(self, self.layout.write(), cx.descend())
    }
}

impl<'m> MmapPin<'m> {
    /// Keeps the mappings of `range` in `mm` as they are also when the guard is gone.
    pub(super) fn new(mm: &'m Mm, held: &MmapReadGuard<'_>, range: VpnRange) -> Self {
        Self {
            mm,
            _kept: mm.layout.pin(&held.layout, range),
        }
    }
    /// Right to open windows over the pages that are pinned.
    pub(super) fn lease<'l, R: Below<rank::Mmap>>(
        &'l self,
        cx: &'l mut Cx<'_, R, Sleepable>,
    ) -> Lease<'l, rank::Mmap, Sleepable> {
        Lease {
            mm: self.mm,
            cx: cx.descend(),
        }
    }
}

impl MmapReadGuard<'_> {
    /// Right to open windows.
    pub fn lease(&mut self) -> Lease<'_, rank::Mmap, Sleepable> {
        Lease {
            mm: self.mm,
            cx: self.cx.reborrow(),
        }
    }
    pub(super) fn held(&mut self) -> FaultScope<'_> {
        FaultScope {
            layout: &self.layout,
            lease: Lease {
                mm: self.mm,
                cx: self.cx.reborrow(),
            },
            later: Deferral::Never,
        }
    }
}

impl MmapWriteGuard<'_> {
    /// Right to open windows.
    pub fn lease(&mut self) -> Lease<'_, rank::Mmap, Sleepable> {
        Lease {
            mm: self.mm,
            cx: self.cx.reborrow(),
        }
    }
}

impl<'g> MmapWriteGuard<'g> {
    pub(super) fn new(mm: &'g Mm, layout: WriteGuard<'g, Layout>, cx: FaultCx<'g>) -> Self {
        Self {
            mm,
            layout,
            cx,
            own: Ranges::new(),
            reach: Ranges::new(),
        }
    }
    /// Says which pages the operation works on. If somebody else is at work on these, or on a VMA that they are part of or
    /// touch, waits, and returns `false`: whatever was seen of the layout is to be looked at again.
    pub(super) fn settle(&mut self, own: &[VpnRange]) -> bool {
        self.own = Ranges::from_slice(own);
        self.reach.clear();
        self.layout.is_only_one() || {
            self.reach = self.layout.reach(own);
            self.layout.settle(&self.own, &self.reach)
        }
    }
    /// The same until nobody is, where the pages do not depend on the layout.
    pub(super) fn settle_on(&mut self, range: VpnRange) {
        while !self.settle(&[range]) {}
    }
    /// Waits for everybody, and keeps everybody out.
    pub(super) fn settle_alone(&mut self) {
        self.settle_on(VpnRange::ALL);
        self.own.clear();
    }
    /// Whether a driver may sleep, or so many pages are walked over that others should not wait.
    pub(super) fn should_yield(&self, pages: u64) -> bool {
        let sleeps = || self.mm.notifiers.is_made() || self.mm.machine().mem().has_exported();
        !self.own.is_empty() && (pages > LONG || sleeps())
    }
    /// Whether somebody else is at work on pages of `range`.
    pub(super) fn claimed(&self, range: VpnRange) -> bool {
        let mut held = self.layout.claims().flat_map(|claim| &claim.held);
        held.any(|held| held.overlaps(range))
    }
    fn claim(&mut self, then: AfterYield, beside: &[VpnRange]) -> Claim {
        let mut quiet = self.own.clone();
        quiet.extend_from_slice(beside);
        let mut held = quiet.clone();
        if then == AfterYield::KeepsEditing {
            if self.reach.is_empty() {
                self.reach = self.layout.reach(&self.own);
            }
            held.extend_from_slice(&self.reach);
        }
        Claim { quiet, held }
    }
    /// Runs `f`, which opens windows or walks over `pages`, with exclusivity given up but for the operation's own pages and
    /// those `beside` them, if that is worth it.
    pub(super) fn yield_while<T>(
        &mut self,
        pages: u64,
        then: AfterYield,
        beside: &[VpnRange],
        f: impl FnOnce(Lease<'_, rank::Mmap, Sleepable>) -> T,
    ) -> T {
        let claim = self.should_yield(pages).then(|| self.claim(then, beside));
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
    /// The same of something that faults in the operation's own pages; other writers wait.
    pub(super) fn during_faults<T>(&mut self, f: impl FnOnce(FaultScope<'_>) -> T) -> T {
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
                .during_shared(claim, |layout| f(FaultScope::new(layout, lease))),
            None => f(FaultScope::new(&self.layout, lease)),
        }
    }
}

impl<R: Rank + Below<rank::Folio>> Lease<'_, R, Sleepable> {
    /// Whoever has frames by number is told of those that lost their mappings: once a window that dropped some has ended.
    #[inline]
    pub(super) fn settle_exports(&mut self) {
        self.mm.machine().host().settle_exports(&mut self.cx);
    }
}

impl<'l, R: Rank> Lease<'l, R, Sleepable> {
    /// The same right, lent.
    #[inline(always)]
    pub(super) fn again(&mut self) -> Lease<'_, R, Sleepable> {
        Lease {
            mm: self.mm,
            cx: self.cx.reborrow(),
        }
    }
    /// Opens a window; drivers may sleep, none may refuse.
    #[inline(always)]
    pub fn window(&mut self, range: VpnRange, event: Event) -> InvalidationWindow<'_, Sleepable>
    where
        R: Below<rank::Window>,
    {
        self.again().into_window(range, event)
    }
    #[inline(always)]
    pub(super) fn into_window(
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
    /// Scoped form of [`window`](Self::window): the window cannot be leaked.
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
    /// Forbids blocking from here on.
    pub fn non_blocking(&mut self) -> Lease<'_, R, Atomic> {
        Lease {
            mm: self.mm,
            cx: self.cx.non_blocking(),
        }
    }
    /// Opens a window without blocking.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`] when a driver would have to sleep; those who had agreed have been told the end.
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
