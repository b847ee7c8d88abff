//! The mmap lock and what holding it entitles to.
//!
//! A [`Lease`] says that a lock is held which keeps the mappings of *this* address space stable; it is the right to
//! open invalidation windows on it. Only the two guards below give one.

use super::{
    InvalidationWindow, Mm,
    layout::Layout,
    mmap_lock::{ReadGuard, WriteGuard},
};
use crate::{
    addr::VpnRange,
    ctx::{Atomic, Below, Context, Cx, Rank, Sleepable, rank},
    notifier::{Event, OpenWindow, WouldBlock},
};

/// The mmap lock is held shared: faults run, the layout stands still.
pub struct MmapReadGuard<'g> {
    pub(super) mm: &'g Mm,
    pub(super) layout: ReadGuard<'g, Layout>,
    pub(super) cx: Cx<'g, rank::Mmap, Sleepable>,
}

/// The mmap lock is held exclusively.
pub struct MmapWriteGuard<'g> {
    pub(super) mm: &'g Mm,
    pub(super) layout: WriteGuard<'g, Layout>,
    pub(super) cx: Cx<'g, rank::Mmap, Sleepable>,
}

/// A lock that keeps the mappings of `mm` stable is held: the right to open windows on it.
pub struct Lease<'l, R: Rank, C: Context> {
    pub(super) mm: &'l Mm,
    pub(super) cx: Cx<'l, R, C>,
}

/// Layout and lease at once: what a fault needs, from either guard.
pub(super) struct Held<'h> {
    pub(super) layout: &'h Layout,
    pub(super) lease: Lease<'h, rank::Mmap, Sleepable>,
}

impl MmapReadGuard<'_> {
    /// Right to open windows.
    pub fn lease(&mut self) -> Lease<'_, rank::Mmap, Sleepable> {
        Lease {
            mm: self.mm,
            cx: self.cx.reborrow(),
        }
    }
    pub(super) fn held(&mut self) -> Held<'_> {
        Held {
            layout: &self.layout,
            lease: Lease {
                mm: self.mm,
                cx: self.cx.reborrow(),
            },
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
    pub(super) fn held(&mut self) -> Held<'_> {
        Held {
            layout: &self.layout,
            lease: Lease {
                mm: self.mm,
                cx: self.cx.reborrow(),
            },
        }
    }
    /// Opens a window of the kind that every operation under this lock uses.
    pub(super) fn window(
        &mut self,
        range: VpnRange,
        event: Event,
    ) -> InvalidationWindow<'_, Sleepable> {
        Lease {
            mm: self.mm,
            cx: self.cx.reborrow(),
        }
        .into_window(range, event)
    }
}

impl<'l, R: Rank> Lease<'l, R, Sleepable> {
    /// Opens a window; drivers may sleep, none may refuse.
    #[inline(always)]
    pub fn window(&mut self, range: VpnRange, event: Event) -> InvalidationWindow<'_, Sleepable>
    where
        R: Below<rank::Window>,
    {
        Lease {
            mm: self.mm,
            cx: self.cx.reborrow(),
        }
        .into_window(range, event)
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
