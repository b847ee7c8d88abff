//! `MADV_PAGEOUT`: reclaims the pages of a range at once, whether they were used lately or not.

use crate::mm::{
    entry::flags::VmFlags,
    large::ownership::{Shared, is_part_of},
    space::Mm,
    window::Lease,
};
use crate::{
    addr::{Pfn, VpnRange},
    ctx::{CallCx, FaultCx, Sleepable, rank},
    error::MadviseError,
    frame::{Frame, FrameFlags},
    reclaim::References,
};

impl Mm {
    /// Reclaims VMA by VMA (`madvise_pageout`).
    pub(in crate::mm) fn advise_pageout(
        &self,
        cx: &mut CallCx<'_>,
        range: VpnRange,
    ) -> Result<(), MadviseError> {
        self.each_claimed(cx, range, |vma, part| {
            if vma.flags.intersects(VmFlags::LOCKED | VmFlags::HUGETLB) {
                return Err(MadviseError::Unsuitable(vma.start().addr()));
            }
            Ok(move |lease: Lease<'_, rank::Mmap, Sleepable>| lease.page_out(part))
        })
    }
}

impl Lease<'_, rank::Mmap, Sleepable> {
    /// Collects the pages of each leaf under its lock and reclaims them after that, from the lowest
    /// leaf on.
    fn page_out(mut self, part: VpnRange) {
        let mm = self.mm;
        mm.machine().mem().drain_batches();
        let mut rest = Some(part);
        while let Some(block) = rest.and_then(|rest| first_leaf(mm, &mut self.cx, rest)) {
            let _held = mm.split_own_parts(self.cx.descend(), block);
            let passed_by = mm.split_object_parts(&mut self.cx, block);
            let one = mm.huge_alone(&mut self.cx, block);
            let list = own_pages(mm, &mut self.cx, block, one, |pfn| {
                let is_own = mm.machine().mem().mapcount(pfn) == 1 || one == Some(pfn.head());
                is_own && !passed_by.contains(&pfn)
            });
            let _counts = mm
                .machine()
                .reclaimer()
                .shrink(&mut self.cx, list, References::Ignore);
            rest = VpnRange::new(block.end(), part.end());
        }
    }
}

/// Returns the pages of `range` in its first leaf. Ranges without tables cost nothing.
fn first_leaf(mm: &Mm, cx: &mut FaultCx<'_>, range: VpnRange) -> Option<VpnRange> {
    let view = mm.table.view(cx);
    view.leaves(range, |part, _| Err(part)).err()
}

/// Takes the frames of a leaf off their lists that are this process's `own`, and not of a huge page
/// that seems to be shared, as that of `one` does not: it may not give up pages that others use.
fn own_pages<'m>(
    mm: &'m Mm,
    cx: &mut FaultCx<'_>,
    block: VpnRange,
    one: Option<Pfn>,
    own: impl Fn(Pfn) -> bool,
) -> Vec<Frame<'m>> {
    let mem = mm.machine().mem();
    let mut list = Vec::new();
    mm.for_each_locked_leaf(cx, block, |part, leaf| {
        let mut passed_by = mm.passed_by(leaf, part, Shared::PassesBy);
        passed_by.retain(|page| Some(page.head()) != one);
        let counted = part.iter().filter_map(|at| leaf.get(at).counted());
        let passes = |pfn: Pfn| is_part_of(mem, &passed_by, pfn);
        for pfn in counted.filter(|&pfn| own(pfn) && !passes(pfn) && !mem.is_device(pfn)) {
            mem.clear_flags(pfn, FrameFlags::REFERENCED | FrameFlags::ACTIVE);
            // The page leaves its list. A page on no list is being worked on already; of a large
            // page only the frame that stands for it is on one.
            if mem.lru_remove(pfn) || !mem.has_lru() && mem.stands_for(pfn) == pfn {
                list.push(mem.get(pfn));
            }
        }
    });
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctx::CallbackCx;
    use crate::{
        addr::{PAGE_SIZE, Vpn},
        ctx::Atomic,
        frame::MemConfig,
        mm::{
            entry::args::MmapArgs,
            machine::{Machine, MachineConfig},
        },
        notifier::{Ack, ExternalMmu, Gate, Invalidation, OrderedStore, Seat},
    };
    use std::{
        sync::{Arc, Barrier, Mutex},
        thread::scope,
    };

    /// A driver whose first window lets another thread run.
    struct Meddler {
        gate: Gate<OrderedStore<u64>, (), Atomic>,
        once: Mutex<Option<Arc<Barrier>>>,
    }

    impl ExternalMmu for Meddler {
        fn invalidate_start<'i>(&self, cx: CallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
            let once = self.once.lock().unwrap().take();
            if let Some(turn) = once {
                turn.wait(); // It begins,
                turn.wait(); // and it is done.
            }
            self.gate.exclude(cx, inv, |(), _, _| ())
        }
    }

    fn small() -> Arc<Machine> {
        Machine::new(MachineConfig {
            memory: MemConfig {
                frames: 64,
                swap: 64,
                ..MemConfig::default()
            },
            ..MachineConfig::default()
        })
    }

    /// Reclaims the two pages from `addr` on.
    fn shrink_two(machine: &Machine, mm: &Mm, cx: &mut CallCx<'_>, addr: u64) {
        let first = Vpn::containing(addr);
        let pages = VpnRange::new(first, first.plus(2)).unwrap();
        let mut g = mm.lock_shared(cx);
        let Lease { mm, mut cx } = g.lease();
        let list = own_pages(mm, &mut cx, pages, None, |pfn| {
            machine.mem().mapcount(pfn) == 1
        });
        assert_eq!(list.len(), 2);
        let _counts = machine.reclaimer().shrink(&mut cx, list, References::Check);
    }

    /// While reclaim opens a window for the first page, a copy replaces the only mapping of the
    /// second, which reclaim has taken already. The slot that the second gets then has no entry
    /// that would free it later.
    #[test]
    fn a_page_copied_while_reclaim_holds_it_leaves_nothing_in_swap() {
        let machine = small();
        let mut thread = machine.enter().unwrap();
        let mut cx = thread.cx();
        let mm = Mm::new(&machine);
        let args = MmapArgs::anonymous(2 * PAGE_SIZE);
        let addr = mm.mmap(&mut cx, &args).unwrap();
        let second = addr + PAGE_SIZE;
        mm.store(&mut cx, addr, 1).unwrap();
        mm.store(&mut cx, second, 1).unwrap();
        // The child is gone by the next store, which finds that the page is exclusive.
        let child = mm.fork(&mut cx).unwrap();
        child.exit(&mut cx);
        shrink_two(&machine, &mm, &mut cx, addr); // They were used.
        let turn = Arc::new(Barrier::new(2));
        let (_meddler, registration) = mm.register(&mut cx, |seat: Seat| {
            Arc::new(Meddler {
                gate: Gate::new(seat, OrderedStore::default(), ()),
                once: Mutex::new(Some(Arc::clone(&turn))),
            })
        });
        scope(|s| {
            s.spawn(|| {
                let mut thread = machine.enter().unwrap();
                turn.wait();
                mm.store(&mut thread.cx(), second, 2).unwrap();
                turn.wait();
            });
            shrink_two(&machine, &mm, &mut cx, addr);
        });
        let mem = machine.mem();
        assert_eq!(
            (mem.swap().used(), mem.swap().cached()),
            (1, 1),
            "the first"
        );
        assert_eq!(mem.in_use(), 2, "the first in the cache, and the copy");
        mm.unregister(&mut cx, registration);
        mm.exit(&mut cx);
        assert_eq!((mem.swap().used(), mem.in_use()), (0, 0));
    }
}
