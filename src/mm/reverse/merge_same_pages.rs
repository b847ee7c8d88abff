//! Same-page merging of one page: private pages with equal bytes come to share one frame
//! (`try_to_merge_one_page`).
//!
//! A page is write-protected in a window, compared, and replaced in another; a later write copies.
//! A merged frame belongs to no one family of mappings: its owner is a reverse map of its own
//! ([`MergedPage`]), by which it can be moved. It counts as shared however few mappings are left,
//! and it stays in memory: it is on no list of reclaim.

use crate::mm::{
    entry::{
        flags::VmFlags,
        pte::{RawPte, Rights},
    },
    guard::MmapSharedClaim,
    machine::Machine,
    space::Mm,
    vma::layout::Layout,
    window::{Lease, PteSlot},
};
use crate::{
    addr::{Pfn, Vpn, VpnRange},
    ctx::{CallCx, FolioCx, rank},
    frame::{Frame, FrameFlags},
    notifier::Event,
    rmap::{MergedPage, MergedPlace, split_large_of},
};
use std::sync::{Arc, Weak};

/// The frame into which a page is merged (`try_to_merge_with_ksm_page`).
#[derive(Clone, Copy)]
pub(in crate::mm) enum MergeInto<'k, 'm> {
    /// The page's own: it becomes the frame into which others are merged.
    Itself,
    /// This one, which the page's mapping gets if the bytes are equal.
    Kept(&'k Frame<'m>),
}

impl Mm {
    /// Returns a reference on the private page at `at`, whatever rights its entry gives; `None` if
    /// its frame cannot be merged: huge pages of a pool are never split (`vma_ksm_compatible`).
    pub(in crate::mm) fn private_frame(&self, cx: &mut CallCx<'_>, at: Vpn) -> Option<Frame<'_>> {
        let mem = self.machine().mem();
        self.mapped_at(cx, at).filter(|frame| {
            let kind = FrameFlags::ANON | FrameFlags::SWAP_CACHE;
            mem.flags(frame.pfn()) & kind == FrameFlags::ANON && !mem.is_of_pool(frame.pfn())
        })
    }

    /// Merges the page `page` at `at`; returns the page if it did. A part of a huge page is split
    /// off first, which gives up parts that hold only zeros. VMAs without the flags `of` are left
    /// alone.
    pub(in crate::mm) fn merge_one<'m>(
        &'m self,
        cx: &mut CallCx<'_>,
        at: Vpn,
        page: Frame<'m>,
        how: (MergeInto<'_, 'm>, VmFlags),
    ) -> Option<Frame<'m>> {
        let merged = self.merge_locked(cx, at, page, how);
        // Drivers that have the frame by number are called after its lock is released.
        self.machine().host().settle_exports(cx);
        merged
    }
    fn merge_locked<'m>(
        &'m self,
        cx: &mut CallCx<'_>,
        at: Vpn,
        page: Frame<'m>,
        (into, of): (MergeInto<'_, 'm>, VmFlags),
    ) -> Option<Frame<'m>> {
        let mem = self.machine().mem();
        let range = VpnRange::single(at);
        let g = self.lock_shared_over(cx, Some(range));
        let vma = g.layout.vmas.get(at)?;
        if vma.flags.contains(VmFlags::SHARED) || !vma.flags.contains(of) {
            return None;
        }
        if mem.is_device(page.pfn()) {
            return None; // `folio_is_zone_device`
        }
        let place = g.layout.merged_place(at)?;
        let _claim = MmapSharedClaim::new(self, &g, range);
        drop(g);
        let locked = mem.try_lock(page).ok()?;
        let mut cx = cx.descend::<rank::Folio, _>();
        let pfn = locked.pfn();
        if mem.is_large(pfn) {
            if mem.is_pinned(pfn) {
                return None; // It stays whole.
            }
            split_large_of(self.machine().registry(), mem, &mut cx, &locked);
        }
        if !self.protect_for_merge(&mut cx, at, pfn) {
            return None;
        }
        match into {
            MergeInto::Itself => {
                let page = MergedPage::new(self.machine().registry());
                mem.set_owner(pfn, Some(page.owner()));
                self.machine().merged.add(pfn, page);
                let lost = FrameFlags::ACTIVE | FrameFlags::ANON_EXCLUSIVE;
                mem.lru_move(pfn, FrameFlags::UNEVICTABLE | FrameFlags::DIRTY, lost);
            }
            MergeInto::Kept(kept) => {
                let equal = mem.equal(pfn, kept.pfn());
                if !equal || !self.replace_merged(&mut cx, at, pfn, kept) {
                    return None;
                }
                self.machine().note_merged(kept, place);
            }
        }
        Some(locked.frame().clone())
    }

    /// Notes that the page at `at` became the merged frame `kept`, after the first twin of it did
    /// (`stable_tree_append`).
    pub(super) fn note_merged_itself(&self, cx: &mut CallCx<'_>, at: Vpn, kept: &Frame<'_>) {
        let g = self.lock_shared_over(cx, Some(VpnRange::single(at)));
        if let Some(place) = g.layout.merged_place(at) {
            self.machine().note_merged(kept, place);
        }
    }
    /// Write-protects the page, so that every later write faults (`write_protect_page`). Returns
    /// false if a reference beside the mappings exists, whose holder could write. The window opens
    /// before the entry is read, as on Linux.
    fn protect_for_merge(&self, cx: &mut FolioCx<'_>, at: Vpn, pfn: Pfn) -> bool {
        let mem = self.machine().mem();
        let done = self.in_merge_window(cx, at, pfn, |slot| {
            let (pte, flags) = (slot.raw(), mem.flags(pfn));
            let own = flags.contains(FrameFlags::ANON_EXCLUSIVE);
            if pte.may_write() || pte.is_dirty() || own {
                // One reference is this pass's.
                if mem.refcount(pfn) != mem.mapcount(pfn) + 1 {
                    return false;
                }
                mem.clear_flags(pfn, FrameFlags::ANON_EXCLUSIVE);
                slot.write_protect_clean();
            }
            true
        });
        // A driver that has the frame by number must not write to it either, before the bytes are
        // compared.
        self.machine().registry().exports.notify(mem, cx, pfn);
        done
    }
    /// Replaces the page by `kept` (`replace_page`), if it is still the page that was compared, and
    /// still write-protected; returns true if it did.
    fn replace_merged(&self, cx: &mut FolioCx<'_>, at: Vpn, pfn: Pfn, kept: &Frame<'_>) -> bool {
        let mem = self.machine().mem();
        self.in_merge_window(cx, at, pfn, |slot| {
            let pte = slot.raw();
            if pte.may_write() {
                return false;
            }
            let rights = Rights {
                read: pte.may_read(),
                write: false,
            };
            mem.share(kept.pfn());
            drop(slot.replace(RawPte::frame(kept.pfn(), rights)));
            true
        })
    }
    /// Opens a window over page `at`, and in it runs `f` on the entry if that maps `pfn`. Returns
    /// the result of `f`, false if it did not run.
    fn in_merge_window(
        &self,
        cx: &mut FolioCx<'_>,
        at: Vpn,
        pfn: Pfn,
        f: impl FnOnce(PteSlot<'_>) -> bool,
    ) -> bool {
        let lease = Lease {
            mm: self,
            cx: cx.reborrow(),
        };
        let mut window = lease.into_window(VpnRange::single(at), Event::Clear);
        let done = window.lock_ptes(at, |txn| {
            let slot = txn.entry(at).filter(|s| s.raw().counted() == Some(pfn));
            slot.is_some_and(f)
        });
        window.close();
        done == Some(true)
    }
}

impl Layout {
    /// Returns the place of a private page, for the reverse map of a merged page.
    fn merged_place(&self, at: Vpn) -> Option<MergedPlace> {
        let node = self.vmas.get(at)?.anon_node()?;
        Some(MergedPlace {
            space: Weak::clone(&self.space),
            node: Arc::clone(node),
            at,
        })
    }
}

impl Machine {
    /// Adds a place to the reverse map of a merged frame.
    fn note_merged(&self, kept: &Frame<'_>, place: MergedPlace) {
        let owner = self.mem().owner(kept.pfn());
        if let Some(page) = owner.and_then(|owner| self.merged.find(owner.id)) {
            page.add(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        addr::PAGE_SIZE,
        mm::{
            entry::args::MmapArgs,
            machine::{Machine, MachineConfig},
            space::Mm,
        },
    };

    /// A page is not merged while a reference beside its mapping is held, whose holder may write to
    /// it.
    #[test]
    fn a_page_that_is_held_is_not_merged() {
        let machine = Machine::new(MachineConfig::default());
        let mut thread = machine.enter().unwrap();
        let mut cx = thread.cx();
        let mm = Mm::new(&machine);
        let first = mm
            .mmap(&mut cx, &MmapArgs::anonymous(2 * PAGE_SIZE))
            .unwrap();
        let second = first + PAGE_SIZE;
        for addr in [first, second] {
            mm.store(&mut cx, addr, 1).unwrap();
        }
        let pages = [(&*mm, first), (&*mm, second)];
        let at = crate::addr::Vpn::containing(second);
        let held = mm.private_frame(&mut cx, at).unwrap();
        assert_eq!(machine.merge_same_pages(&mut cx, &pages), 0);
        held.write(0, &[2]);
        assert_eq!(
            (mm.load(&mut cx, first), mm.load(&mut cx, second)),
            (Ok(1), Ok(2))
        );
        held.write(0, &[1]);
        drop(held);
        assert_eq!(machine.merge_same_pages(&mut cx, &pages), 1);
        mm.exit(&mut cx);
    }
}
