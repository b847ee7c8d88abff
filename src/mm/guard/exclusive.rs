//! The mmap lock held exclusively.

use super::lease::Lease;
use crate::ctx::{Below, Cx, FaultCx, Sleepable, rank};
use crate::mm::{
    lock::{Ranges, WriteGuard},
    space::Mm,
    vma::layout::Layout,
};

/// The mmap lock held exclusively: the holder may change VMAs, and opens windows with a [`Lease`].
pub struct MmapWriteGuard<'g> {
    pub(in crate::mm) mm: &'g Mm,
    pub(in crate::mm) layout: WriteGuard<'g, Layout>,
    pub(in crate::mm) cx: FaultCx<'g>,
    /// The pages that the operation works on; empty if it never gives exclusivity up.
    pub(super) pages: Ranges,
    /// `pages` and the VMAs that contain or touch them: all that the operation can split or merge.
    /// Empty until another operation has to be kept off them.
    pub(super) extent: Ranges,
}

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
