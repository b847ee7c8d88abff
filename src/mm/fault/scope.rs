//! [`FaultScope`]: everything that one fault works with; and the window that a fault postpones
//! until the mmap lock is released.
//!
//! A driver may sleep in a window. So a fault that needs one defers it, if there is a driver: it
//! releases the mmap lock with the window's pages claimed, and an operation on other mappings does
//! not wait for the driver (ADR 0009). Without drivers the window is opened under the lock at once.
//!
//! A fault decides and allocates everything before its window; [`WindowWork`] carries the result,
//! and in the window it is only put in place, if the entry is still the one that was seen.

use crate::mm::{
    entry::pte::{RawPte, Rights},
    guard::{MmapReadGuard, MmapSharedClaim},
    page_table::{LockedLeaf, fill_part},
    space::Mm,
    vma::layout::Layout,
    window::{InvalidationWindow, Lease},
};
use crate::{
    addr::{Pfn, Vpn, VpnRange},
    ctx::{Below, Cx, Sleepable, rank},
    frame::{Frame, LargeFrame, PhysMem, PoolPage},
    notifier::Event,
    rmap::Mapping,
};
use std::sync::Arc;

/// Everything that a fault works with, from a guard of either kind.
pub(in crate::mm) struct FaultScope<'h> {
    /// The VMAs, which nothing changes while the scope lives.
    pub(in crate::mm) layout: &'h Layout,
    pub(in crate::mm) lease: Lease<'h, rank::Mmap, Sleepable>,
    deferral: Deferral,
    /// The byte of the access, if one byte is accessed.
    pub(in crate::mm) byte: Option<u64>,
}

/// The right of a fault to postpone its work for a window, and the work once it did.
#[derive(Debug)]
enum Deferral {
    /// The work is done at once: the caller has more to do under the lock.
    Never,
    /// The work may be postponed; there is none yet.
    Nothing,
    /// This work was postponed.
    Work(WindowWork),
}

/// Work for a window. It owns the references on the frames that it names.
#[derive(Debug)]
pub(in crate::mm) enum WindowWork {
    /// Replace the entry `seen` at `at` by `pte`, which maps `copy` (`wp_page_copy`).
    Copy {
        /// The page that was written to.
        at: Vpn,
        /// The entry that was copied from: the work is void if another one is there by now.
        seen: RawPte,
        /// The new frame.
        copy: Pfn,
        /// The new entry.
        pte: RawPte,
        /// The frame that was copied; `None` for the zero page.
        original: Option<Pfn>,
        /// The VMA is locked: the copy replaces the original among the locked pages.
        locked: bool,
    },
    /// Take the page of the exclusive entry `seen` back, in a VMA with these rights.
    TakeBack {
        at: Vpn,
        seen: RawPte,
        rights: Rights,
    },
    /// Split the mapping of the huge page at this page into small entries.
    Split(Vpn),
    /// Replace the huge zero page at `at` by the huge page that begins with `head`
    /// (`do_huge_zero_wp_pmd`).
    HugeZero { at: Vpn, head: Pfn, rights: Rights },
    /// Replace the huge page of a pool, whose first entry was `seen`, by its copy (`hugetlb_wp`).
    HugetlbCopy {
        page: VpnRange,
        seen: RawPte,
        new: PoolPage,
        rights: Rights,
    },
    /// Take the huge page that begins with `head` away from the processes that have no reservation
    /// for it; it is `pages` of the object (`unmap_ref_private`).
    Steal {
        page: VpnRange,
        mapping: Arc<Mapping>,
        pages: (u64, u64),
        head: Pfn,
    },
}

impl WindowWork {
    /// The pages that are claimed until the work is done, and that the window covers.
    fn range(&self) -> VpnRange {
        match *self {
            Self::Copy { at, .. } | Self::TakeBack { at, .. } => VpnRange::single(at),
            Self::Split(at) | Self::HugeZero { at, .. } => VpnRange::block_of(at),
            Self::HugetlbCopy { page, .. } | Self::Steal { page, .. } => page,
        }
    }
}

/// The references that belong to deferred work: dropped, unless the work puts them in place.
enum Frames<'m> {
    Copy {
        copy: Frame<'m>,
        original: Option<Frame<'m>>,
    },
    Huge(LargeFrame<'m>),
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
            _ => Self::None,
        }
    }
}

impl Mm {
    /// Runs `f` with the mmap lock held shared over `range`; then releases the lock, and opens the
    /// window that `f` deferred. Returns true beside the result of `f` if there was one.
    ///
    /// The window's pages stay claimed ([`MmapSharedClaim`]) between the lock and the end of the
    /// window: no operation changes their mappings, operations on other pages do not wait for the
    /// drivers.
    #[inline]
    pub(in crate::mm) fn with_fault_scope<R: Below<rank::Mmap>, T>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        range: VpnRange,
        f: impl FnOnce(&mut FaultScope<'_>) -> T,
    ) -> (T, bool) {
        let mut g = self.lock_shared_over(cx, Some(range));
        let mut scope = FaultScope::of(&mut g);
        // Only a driver makes it worth while to release the lock first: it might sleep.
        if self.notifiers.is_made() {
            scope.deferral = Deferral::Nothing;
        }
        let out = f(&mut scope);
        let Deferral::Work(work) = scope.deferral else {
            return (out, false);
        };
        let claim = MmapSharedClaim::new(self, &g, work.range());
        drop(g);
        claim.lease(cx).finish(work);
        (out, true)
    }
}

impl<'h> FaultScope<'h> {
    /// A scope whose work for windows is done at once.
    pub(in crate::mm) fn new(layout: &'h Layout, lease: Lease<'h, rank::Mmap, Sleepable>) -> Self {
        let deferral = Deferral::Never;
        Self {
            layout,
            lease,
            deferral,
            byte: None,
        }
    }
    /// A scope under the lock held shared. Work for windows is done at once.
    pub(in crate::mm) fn of(g: &'h mut MmapReadGuard<'_>) -> Self {
        let lease = Lease {
            mm: g.mm,
            cx: g.cx.reborrow(),
        };
        Self::new(&g.layout, lease)
    }
    pub(in crate::mm) fn has_deferred(&self) -> bool {
        matches!(self.deferral, Deferral::Work(_))
    }
    /// Does the work now, or defers it. Must be the last step of the fault: what it has looked at
    /// before may have changed since.
    #[inline]
    pub(in crate::mm) fn in_window(&mut self, work: WindowWork) {
        if matches!(self.deferral, Deferral::Nothing) {
            self.deferral = Deferral::Work(work);
        } else {
            self.lease.finish(work);
        }
    }
}

impl Lease<'_, rank::Mmap, Sleepable> {
    /// Does the work in a window over its pages, if they are still as the fault saw them.
    #[inline]
    fn finish(&mut self, work: WindowWork) {
        let range = work.range();
        let work = match work {
            WindowWork::Split(at) => return self.split_pmd(at),
            WindowWork::TakeBack { at, seen, rights } => return self.take_back(at, seen, rights),
            WindowWork::Steal {
                mapping,
                pages,
                head,
                ..
            } => return mapping.steal(&mut self.cx, pages, head),
            work => work,
        };
        // The frames are adopted before the window opens: a driver's panic may keep it from
        // opening, and the frames must be given back then.
        let frames = Frames::of(self.mm.machine().mem(), &work);
        let mut window = self.window(range, Event::Clear);
        window.put_in_place(work, frames);
        window.close();
        self.settle_exports();
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
                    if let Some(slot) = txn.entry(at)
                        && slot.raw() == seen
                    {
                        let pfn = copy.into_raw();
                        mem.map_inc(pfn);
                        drop(slot.replace(pte));
                        mem.lru_add(pfn);
                        // The copy is locked in memory in the place of the original.
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
                        map_large(mem, leaf, VpnRange::block_of(at), huge, rights);
                    }
                });
            }
            (
                WindowWork::HugetlbCopy {
                    page,
                    seen,
                    new,
                    rights,
                },
                _,
            ) => self.put_hugetlb_copy((page, seen), new, rights),
            _ => {}
        }
    }
    /// Maps the copy of a huge page of a pool in the place of the page, if that is still mapped.
    fn put_hugetlb_copy(
        &mut self,
        (page, seen): (VpnRange, RawPte),
        new: PoolPage,
        rights: Rights,
    ) {
        let mem = self.mm().machine().mem();
        let first = RawPte::frame(new.head(), rights)
            .mkdirty()
            .in_place_of(seen);
        let still = self.lock_ptes(page.start(), |txn| txn.leaf().get(page.start()) == seen);
        if still != Some(true) {
            return;
        }
        // As soon as it is mapped, another thread may unmap it.
        new.keep();
        self.for_each_leaf_in(page, |txn| {
            let part = txn.range();
            let nth = u32::try_from(part.start().0 - page.start().0).expect("within a page");
            txn.remove(part, |_| Some(RawPte::NONE));
            let leaf = txn.leaf();
            let first = first.with_pfn(first.pfn().nth(nth));
            fill_part(mem, leaf, part, first, PhysMem::map_inc);
        });
    }
}

/// Maps every part of a new large page in the leaf, at `at`. The entries get its references.
pub(super) fn map_large(
    mem: &PhysMem,
    leaf: &LockedLeaf<'_>,
    at: VpnRange,
    new: LargeFrame<'_>,
    rights: Rights,
) {
    let (large, head) = (new.page(), new.into_raw());
    for (pfn, page) in large.all().zip(at.iter()) {
        mem.map_inc(pfn);
        leaf.set(page, RawPte::frame(pfn, rights).mkdirty());
    }
    mem.lru_add(head);
}
