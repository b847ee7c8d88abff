//! Same-page merging, as an operation: pages with equal bytes come to share one frame (`try_to_merge_one_page`).
//!
//! Each page is write-protected in a window, compared, and replaced in another; a write to it later copies.

use super::{
    Machine, Mm,
    flags::VmFlags,
    guard::MmapPin,
    pte::{RawPte, Rights},
};
use crate::{
    addr::{Vpn, VpnRange},
    ctx::{Cx, Sleepable, rank},
    frame::{Frame, FrameFlags},
    notifier::{Access, Event},
};

type Idle<'t> = Cx<'t, rank::Idle, Sleepable>;

impl Machine {
    /// Merges the private pages at the byte addresses given with the first of them, as far as their bytes are equal, and
    /// returns how many frames that freed. Pages that are not there, not private, or of a huge page are passed over.
    ///
    /// A page that was merged stays in memory: it is not on the lists of reclaim any more.
    pub fn merge(&self, cx: &mut Idle<'_>, pages: &[(&Mm, u64)]) -> usize {
        let mut rest = pages.iter();
        let kept = rest.by_ref().find_map(|(mm, addr)| {
            let at = Vpn::containing(*addr);
            Some((*mm, at, mm.protect_for_merge(cx, at)?))
        });
        let Some((_, _, kept)) = kept else {
            return 0;
        };
        let mem = self.mem();
        mem.lru_move(
            kept.pfn(),
            FrameFlags::UNEVICTABLE,
            FrameFlags::ACTIVE | FrameFlags::ANON_EXCLUSIVE,
        );
        let merged = rest.filter(|(mm, addr)| {
            let at = Vpn::containing(*addr);
            let found = mm.protect_for_merge(cx, at);
            found.is_some_and(|page| {
                page.pfn() != kept.pfn()
                    && mem.equal(page.pfn(), kept.pfn())
                    && mm.replace_merged(cx, at, &page, &kept)
            })
        });
        merged.count()
    }
}

impl Mm {
    /// `write_protect_page`: the frame of a private page, which nobody can write to without a fault any more.
    fn protect_for_merge(&self, cx: &mut Idle<'_>, at: Vpn) -> Option<Frame<'_>> {
        let mem = self.machine().mem();
        let frame = self.frame_at(cx, at, Access::Read)?;
        let flags = mem.flags(frame.pfn());
        let kind = flags & (FrameFlags::ANON | FrameFlags::LARGE | FrameFlags::SWAP_CACHE);
        if kind != FrameFlags::ANON {
            return None;
        }
        let page = VpnRange::single(at);
        let g = self.read_over(cx, Some(page));
        let vma = g.layout.vmas.get(at)?;
        if vma.flags.contains(VmFlags::SHARED) {
            return None;
        }
        let pin = MmapPin::new(self, &g, page);
        drop(g);
        let mut window = pin.lease(cx).into_window(page, Event::Clear);
        let same = window.lock_ptes(at, |txn| {
            let slot = txn
                .slot(at)
                .filter(|s| s.raw().counted() == Some(frame.pfn()));
            slot.is_some_and(|slot| {
                mem.clear_flags(frame.pfn(), FrameFlags::ANON_EXCLUSIVE);
                slot.write_protect();
                true
            })
        });
        window.close();
        // Nobody writes to it from here on.
        self.machine().host().settle_exports(cx);
        (same == Some(true)).then_some(frame)
    }
    /// `replace_page`, if the page is still the one that was compared, and still protected.
    fn replace_merged(
        &self,
        cx: &mut Idle<'_>,
        at: Vpn,
        page: &Frame<'_>,
        kept: &Frame<'_>,
    ) -> bool {
        let mem = self.machine().mem();
        let range = VpnRange::single(at);
        let pin = MmapPin::new(self, &self.read_over(cx, Some(range)), range);
        let mut window = pin.lease(cx).into_window(range, Event::Clear);
        let done = window.lock_ptes(at, |txn| {
            let Some(slot) = txn.slot(at) else {
                return false;
            };
            let pte = slot.raw();
            if pte.counted() != Some(page.pfn()) || pte.may_write() {
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
        self.machine().host().settle_exports(cx);
        done == Some(true)
    }
}
