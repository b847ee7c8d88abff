//! Same-page merging, page by page: private pages with equal bytes come to share one frame (`try_to_merge_one_page`).
//!
//! A page is write-protected in a window, compared, and replaced in another; a write to it later copies. A merged frame
//! belongs to no family of mappings, so it has no owner: that is what tells it from others. It is nobody's own, however few
//! mappings are left, and it stays in memory: it is not on the lists of reclaim, and does not move.

use crate::ctx::{CallCx, FolioCx};
use crate::mm::{
    entry::{
        flags::VmFlags,
        pte::{RawPte, Rights},
    },
    guard::{Lease, MmapPin},
    space::Mm,
};
use crate::{
    addr::{Pfn, Vpn, VpnRange},
    ctx::rank,
    frame::{Frame, FrameFlags, PhysMem},
    notifier::Event,
    rmap::split_huge_of,
};

/// `folio_test_ksm`.
pub(in crate::mm) fn is_merged(mem: &PhysMem, pfn: Pfn) -> bool {
    mem.flags(pfn).contains(FrameFlags::ANON) && mem.owner(pfn).is_none()
}

/// What is between the pages of one pass (`try_to_merge_with_ksm_page`).
#[derive(Clone, Copy)]
pub(in crate::mm) enum Into<'k, 'm> {
    /// The page becomes the one that others are merged into.
    Itself,
    /// Its mapping gets this frame instead, if the bytes are equal.
    UnmapRefused(&'k Frame<'m>),
}

impl Mm {
    /// A reference on the private page at `at`, whatever the rights; none where its frame cannot be merged.
    pub(in crate::mm) fn private_frame(&self, cx: &mut CallCx<'_>, at: Vpn) -> Option<Frame<'_>> {
        let mem = self.machine().mem();
        self.mapped_at(cx, at).filter(|frame| {
            let kind = FrameFlags::ANON | FrameFlags::SWAP_CACHE;
            mem.flags(frame.pfn()) & kind == FrameFlags::ANON
        })
    }

    /// Merges the page `page` at `at`; returns it if that was done. A part of a huge page is split off first, and parts
    /// that hold only zeros are gone then. VMAs without the flags `of` are left alone.
    pub(in crate::mm) fn merge_one<'m>(
        &'m self,
        cx: &mut CallCx<'_>,
        at: Vpn,
        page: Frame<'m>,
        how: (Into<'_, 'm>, VmFlags),
    ) -> Option<Frame<'m>> {
        let merged = self.merge_locked(cx, at, page, how);
        // Drivers that have the frame by number hear of it when it is not locked any more.
        self.machine().host().settle_exports(cx);
        merged
    }
    fn merge_locked<'m>(
        &'m self,
        cx: &mut CallCx<'_>,
        at: Vpn,
        page: Frame<'m>,
        (into, of): (Into<'_, 'm>, VmFlags),
    ) -> Option<Frame<'m>> {
        let mem = self.machine().mem();
        let range = VpnRange::single(at);
        let g = self.lock_shared_over(cx, Some(range));
        let vma = g.layout.vmas.get(at)?;
        if vma.flags.contains(VmFlags::SHARED) || !vma.flags.contains(of) {
            return None;
        }
        let _pin = MmapPin::new(self, &g, range);
        drop(g);
        let locked = mem.try_lock(page).ok()?;
        let mut cx = cx.descend::<rank::Folio, _>();
        let pfn = locked.pfn();
        if mem.flags(pfn).contains(FrameFlags::LARGE) {
            split_huge_of(self.machine().registry(), mem, &mut cx, &locked);
        }
        if !self.protect_for_merge(&mut cx, at, pfn) {
            return None;
        }
        match into {
            Into::Itself => {
                mem.set_owner(pfn, None);
                let lost = FrameFlags::ACTIVE | FrameFlags::ANON_EXCLUSIVE;
                mem.lru_move(pfn, FrameFlags::UNEVICTABLE | FrameFlags::DIRTY, lost);
            }
            Into::UnmapRefused(kept) => {
                let equal = mem.equal(pfn, kept.pfn());
                if !equal || !self.replace_merged(&mut cx, at, pfn, kept) {
                    return None;
                }
            }
        }
        Some(locked.frame().clone())
    }

    /// `write_protect_page`: nobody can write to the page without a fault any more; not if somebody may hold it to do
    /// so. The window opens before anybody looks.
    fn protect_for_merge(&self, cx: &mut FolioCx<'_>, at: Vpn, pfn: Pfn) -> bool {
        let mem = self.machine().mem();
        let range = VpnRange::single(at);
        let mut window = Lease {
            mm: self,
            cx: cx.reborrow(),
        }
        .into_window(range, Event::Clear);
        let done = window.lock_ptes(at, |txn| {
            let slot = txn.slot(at).filter(|s| s.raw().counted() == Some(pfn));
            slot.is_some_and(|slot| {
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
            })
        });
        window.close();
        // Whoever has the frame by number writes to it no more either, before it is compared.
        self.machine().registry().exports.notify(mem, cx, pfn);
        done == Some(true)
    }
    /// `replace_page`, if the page is still the one that was compared, and still protected.
    fn replace_merged(&self, cx: &mut FolioCx<'_>, at: Vpn, pfn: Pfn, kept: &Frame<'_>) -> bool {
        let mem = self.machine().mem();
        let range = VpnRange::single(at);
        let mut window = Lease {
            mm: self,
            cx: cx.reborrow(),
        }
        .into_window(range, Event::Clear);
        let done = window.lock_ptes(at, |txn| {
            let Some(slot) = txn.slot(at) else {
                return false;
            };
            let pte = slot.raw();
            if pte.counted() != Some(pfn) || pte.may_write() {
                return false;
            }
            let rights = Rights {
                read: pte.may_read(),
                write: false,
            };
            mem.share(kept.pfn());
            drop(slot.replace(RawPte::frame(kept.pfn(), rights)));
            true
        });
        window.close();
        done == Some(true)
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        addr::PAGE_SIZE,
        mm::{
            calls::mmap::MmapArgs,
            machine::{Machine, MachineConfig},
            space::Mm,
        },
    };

    /// Who holds a page that only one process maps may write to it: it is not merged.
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
