//! What a fault does in a window. A driver may sleep in that, so the fault leaves the mmap lock first, with the pages that the
//! window is about pinned: whoever changes other mappings does not wait for the driver.

use crate::mm::{
    entry::pte::{RawPte, Rights},
    guard::{Deferral, FaultScope, Lease, WindowWork},
    page_table::LockedLeaf,
    window::InvalidationWindow,
};
use crate::{
    addr::{Pfn, VpnRange},
    ctx::{Sleepable, rank},
    frame::{Frame, HUGE, HugeFrame, PhysMem},
    notifier::Event,
};

/// The references that belong to some work: given back unless that puts them in place.
enum Frames<'m> {
    Copy {
        copy: Frame<'m>,
        original: Option<Frame<'m>>,
    },
    Huge(HugeFrame<'m>),
    None,
}

impl<'m> Frames<'m> {
    #[inline]
    fn of(mem: &'m PhysMem, work: &WindowWork) -> Self {
        match *work {
            WindowWork::Copy { copy, original, .. } => Self::Copy {
                copy: mem.adopt(copy),
                original: original.map(|pfn| mem.adopt(pfn)),
            },
            WindowWork::HugeZero { head, .. } => Self::Huge(mem.adopt_huge(head)),
            WindowWork::Split(_) => Self::None,
        }
    }
}

impl FaultScope<'_> {
    pub(in crate::mm) fn can_defer(&self) -> bool {
        matches!(self.deferral, Deferral::Nothing)
    }
    pub(in crate::mm) fn has_deferred(&self) -> bool {
        matches!(self.deferral, Deferral::Work(_))
    }
    /// Does the work, now or later. It must be the last of the fault.
    #[inline]
    pub(in crate::mm) fn in_window(&mut self, work: WindowWork) {
        if self.can_defer() {
            self.deferral = Deferral::Work(work);
        } else {
            self.lease.finish(work);
        }
    }
}

impl Lease<'_, rank::Mmap, Sleepable> {
    #[inline]
    pub(in crate::mm) fn finish(&mut self, work: WindowWork) {
        let range = work.range();
        let WindowWork::Split(at) = work else {
            // Before the window opens, which a driver's panic may prevent.
            let frames = Frames::of(self.mm.machine().mem(), &work);
            let mut window = self.window(range, Event::Clear);
            window.put_in_place(work, frames);
            window.close();
            return self.settle_exports();
        };
        self.split_pmd(at);
    }
}

impl InvalidationWindow<'_, Sleepable> {
    #[inline]
    fn put_in_place(&mut self, work: WindowWork, frames: Frames<'_>) {
        let mem = self.mm().machine().mem();
        match (work, frames) {
            (
                WindowWork::Copy {
                    at,
                    seen,
                    pte,
                    locked,
                    ..
                },
                Frames::Copy { copy, original },
            ) => {
                self.lock_ptes(at, |txn| {
                    if let Some(slot) = txn.slot(at)
                        && slot.raw() == seen
                    {
                        let pfn = copy.into_raw();
                        mem.map_inc(pfn);
                        drop(slot.replace(pte));
                        mem.lru_add(pfn);
                        // The copy is locked in its place.
                        if let Some(original) = original.filter(|_| locked) {
                            mem.lru_unlock(original.pfn());
                        }
                    }
                });
            }
            (WindowWork::HugeZero { at, rights, .. }, Frames::Huge(huge)) => {
                self.lock_ptes(at, |txn| {
                    let leaf = txn.leaf();
                    if leaf.is_huge() && leaf.get(at).is_zero_page() {
                        map_huge(mem, leaf, VpnRange::block_of(at), huge.into_raw(), rights);
                    }
                });
            }
            _ => {}
        }
    }
}

/// Every entry of the leaf maps its part of a huge page.
fn map_huge(mem: &PhysMem, leaf: &LockedLeaf<'_>, at: VpnRange, head: Pfn, rights: Rights) {
    for (i, page) in (0..HUGE).zip(at.iter()) {
        mem.map_inc(head.nth(i));
        mem.lru_add(head.nth(i));
        let pte = RawPte::frame(head.nth(i), rights).mkdirty();
        leaf.set(page, pte);
    }
}
