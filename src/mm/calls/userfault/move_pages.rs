//! `UFFDIO_MOVE`: pages of private memory go to absent pages of registered memory, without a copy.

use super::{
    Userfault,
    move_page::{Sides, Stop, lock_own, move_page},
};
use crate::mm::{
    entry::{flags::VmFlags, pte::RawPte, uffd_flags::MoveMode},
    guard::MmapSharedClaim,
    page_table::{LeafAt, LockedLeaf},
    space::Mm,
    vma::{Vma, layout::Layout},
    window::{InvalidationWindow, Lease},
};
use crate::{
    addr::{PAGE_SIZE, PMD_PAGES, Vpn, VpnRange},
    ctx::{CallCx, Sleepable, rank},
    error::{NoMemory, UserfaultError},
    frame::{FrameFlags, HUGE},
    notifier::{Event, Flusher},
};
use std::sync::Arc;

impl Userfault {
    /// Moves the pages of `[src, src + len)` to `dst` (`UFFDIO_MOVE`). Every page must belong to
    /// this process alone. Returns the number of bytes that moved: less than `len` if a later page
    /// failed, where Linux's call fails with EAGAIN.
    ///
    /// A window opens over the rest of the source before each stretch of pages that moves together,
    /// also before one that then fails.
    ///
    /// # Errors
    ///
    /// [`UserfaultError`] of the first page; nothing has moved then.
    pub fn move_pages(
        &self,
        cx: &mut CallCx<'_>,
        dst: u64,
        (src, len): (u64, u64),
        mode: MoveMode,
    ) -> Result<u64, UserfaultError> {
        let (mm, to) = self.begin_answer(dst, len)?;
        let (_, from) = self.begin(src, len)?;
        if !MoveMode::all().contains(mode) {
            return Err(UserfaultError::Mode(mode.bits()));
        }
        let (low, high) = (to.start().min(from.start()), to.end().max(from.end()));
        let both = VpnRange::new(low, high).expect("not empty");
        let g = mm.lock_shared_over(cx, Some(both));
        let sides = self.sides(&g.layout, (from, to), mode)?;
        self.check_steady()?;
        let claim = MmapSharedClaim::new(&mm, &g, both);
        drop(g);
        let mut lease = claim.lease(cx);
        let mut pages = 0;
        let moved = lease.move_all((from, to.start()), &sides, &mut pages);
        lease.settle_exports();
        if pages == 0 {
            moved?;
        }
        if !mode.contains(MoveMode::DONTWAKE) {
            let woken = VpnRange::new(to.start(), to.start().plus(pages));
            self.0.wake(woken.expect("a page moved"));
        }
        Ok(pages * PAGE_SIZE)
    }
    /// Checks both mappings (`validate_move_areas`).
    fn sides(
        &self,
        layout: &Layout,
        (from, to): (VpnRange, VpnRange),
        mode: MoveMode,
    ) -> Result<Sides, UserfaultError> {
        let mapped = |range: VpnRange| {
            let at = range.start();
            let vma = layout.vmas.get(at);
            vma.ok_or(UserfaultError::NotRegistered(at.addr()))
        };
        let target = mapped(to)?;
        layout.prepare_private(target)?;
        let source = mapped(from)?;
        let unsuitable = UserfaultError::Unsuitable(to.start().addr());
        let fits = |vma: &Vma, range: VpnRange| {
            vma.is_anonymous() && !vma.flags.contains(VmFlags::SHARED) && vma.range().covers(range)
        };
        let alike = VmFlags::ACCESS | VmFlags::LOCKED;
        let same = (source.flags ^ target.flags) & alike == VmFlags::empty();
        let writable = source.flags.contains(VmFlags::WRITE);
        let registered = target.is_registered_with(&self.0);
        if !(fits(source, from) && fits(target, to) && same && writable && registered) {
            return Err(unsuitable);
        }
        Ok(Sides {
            node: Arc::clone(layout.anon_of(target)?),
            pgoff: target.pgoff.wrapping_sub(target.start().0),
            rights: target.rights(),
            holes: mode.contains(MoveMode::ALLOW_SRC_HOLES),
        })
    }
}

impl Lease<'_, rank::Mmap, Sleepable> {
    /// Moves stretch by stretch; `pages` counts those that moved, also before an error.
    fn move_all(
        &mut self,
        (from, to): (VpnRange, Vpn),
        sides: &Sides,
        pages: &mut u64,
    ) -> Result<(), UserfaultError> {
        while let Some(rest) = VpnRange::new(from.start().plus(*pages), from.end()) {
            let to = to.plus(*pages);
            match self.move_some(rest, to, sides) {
                Ok(more) => *pages += more,
                Err(Stop::Locked(pfn)) => {
                    self.mm.machine().mem().wait_unlocked(&mut self.cx, pfn);
                }
                // Something else holds the huge page.
                Err(Stop::Split(_)) => return Err(UserfaultError::Shared(rest.start().addr())),
                Err(Stop::Failed(why)) => return Err(why),
            }
        }
        Ok(())
    }
    /// Moves one stretch of pages, and returns how many.
    fn move_some(&mut self, rest: VpnRange, to: Vpn, sides: &Sides) -> Result<u64, Stop> {
        let (mm, at) = (self.mm, rest.start());
        let has_source = mm.with_leaf_of(&mut self.cx, at, |_| ()).is_some();
        if !has_source && !sides.holes {
            return Err(UserfaultError::Hole(at.addr()).into());
        }
        if mm.is_huge(&mut self.cx, to) {
            return Err(UserfaultError::Exists(to.addr()).into());
        }
        if mm.is_huge(&mut self.cx, at)
            && let Some(pages) = self.move_huge(rest, to, sides)?
        {
            return Ok(pages);
        }
        let mut window = self.window(rest, Event::Clear);
        let mut moved = window.move_stretch(rest, to, sides);
        if let Err(Stop::Split(part)) = moved {
            mm.split_own(window.cx().walk_inside(), part);
            moved = window.move_stretch(rest, to, sides);
        }
        window.close();
        moved
    }
    /// Moves a huge page as a whole, or splits its mapping and returns `None`.
    fn move_huge(&mut self, rest: VpnRange, to: Vpn, sides: &Sides) -> Result<Option<u64>, Stop> {
        let (mm, at) = (self.mm, rest.start());
        let mem = mm.machine().mem();
        let own = |pte: RawPte| {
            let own = |pfn| mem.flags(pfn).contains(FrameFlags::ANON_EXCLUSIVE);
            pte.is_zero_page() || pte.counted().is_some_and(own)
        };
        let all_own = mm.with_leaf_of(&mut self.cx, at, |leaf| own(leaf.get(at)));
        if all_own != Some(true) {
            return Err(UserfaultError::Shared(at.addr()).into());
        }
        let whole = at.is_aligned(PMD_PAGES) && to.is_aligned(PMD_PAGES);
        let has_target = mm.with_leaf_of(&mut self.cx, to, |_| ()).is_some();
        if !whole || rest.pages() < PMD_PAGES || has_target {
            self.split_pmd(at);
            return Ok(None);
        }
        let block = VpnRange::block_of(at);
        let mut window = self.window(block, Event::Clear);
        let pages = window.move_leaf(at, to, sides)?;
        // On Linux a huge page has no table, so its leaf goes as well.
        window.free_empty_leaves(block);
        window.close();
        Ok(Some(pages))
    }
}

impl InvalidationWindow<'_, Sleepable> {
    /// Runs `f` on the leaves of both pages, locked; with one leaf for both, the second is `None`.
    fn with_both<T>(
        &mut self,
        from: Vpn,
        to: Vpn,
        f: impl FnOnce(&LockedLeaf<'_>, Option<&LockedLeaf<'_>>) -> Result<T, Stop>,
    ) -> Result<T, Stop> {
        let mm: &Mm = self.mm();
        let mut cx = self.cx();
        let mut pinned = cx.pin();
        let (guard, mut cx) = pinned.parts();
        let pin = mm.table.pin(guard);
        let source = mm.table.make_leaf(from, pin).map_err(failed)?;
        let target = mm.table.make_leaf(to, pin).map_err(failed)?;
        let (source, target) = LeafAt::lock_pair(source, target).map_err(failed)?;
        let moved = f(&source, target.as_ref())?;
        // Before the locks are released: another thread may drop the pages at their new place.
        let _no_frame_goes = Flusher::new(&mm.tlbs, cx.descend()).flush(VpnRange::block_of(from));
        Ok(moved)
    }
    /// Moves pages from the first one on, as many as move together: up to a page that is not in
    /// memory, or not to be moved so (`move_pages_ptes`).
    fn move_stretch(&mut self, rest: VpnRange, to: Vpn, sides: &Sides) -> Result<u64, Stop> {
        let mem = self.mm().machine().mem();
        let from = rest.start();
        let room = |at: Vpn| PMD_PAGES - (at.0 & (PMD_PAGES - 1));
        let most = rest.pages().min(room(from)).min(room(to));
        self.with_both(from, to, |source, target| {
            if source.is_huge() {
                return Ok(0); // A fault has mapped a huge page meanwhile. Looked at anew.
            }
            let target = target.unwrap_or(source);
            let mut pages = 0;
            while pages < most {
                let (at, to) = (from.plus(pages), to.plus(pages));
                // A page of another kind moves alone (`check_ptes_for_batched_move`).
                if pages > 0 && source.get(at).counted().is_none() {
                    break;
                }
                let together = match move_page(mem, (source, at), (target, to), sides) {
                    Err(_) if pages > 0 => break,
                    moved => moved?,
                };
                pages += 1;
                if !together {
                    break;
                }
            }
            Ok(pages)
        })
    }
    /// Moves a huge page; returns 0 if it is none any more, or the target has pages.
    fn move_leaf(&mut self, from: Vpn, to: Vpn, sides: &Sides) -> Result<u64, Stop> {
        let mem = self.mm().machine().mem();
        self.with_both(from, to, |source, target| {
            let target = target.expect("two blocks");
            let pte = source.get(from);
            if !source.is_huge() || !target.is_empty() {
                return Ok(0); // Looked at anew.
            }
            let own = pte.counted().map(|pfn| lock_own(mem, pfn, from));
            let locked = own.transpose()?;
            let pages = VpnRange::block_of(from).iter();
            for (old, new) in pages.zip(VpnRange::block_of(to).iter()) {
                let pte = source.get(old);
                if let Some(pfn) = pte.counted() {
                    mem.set_owner(pfn, Some(sides.owner(new)));
                }
                // The huge zero page stays a huge one.
                let moved = match locked {
                    Some(_) => pte.clear_uffd_wp().with_rights(sides.rights).mkdirty(),
                    None => pte.clear_uffd_wp(),
                };
                source.set(old, RawPte::NONE);
                target.set(new, moved);
            }
            source.set_huge(false);
            target.set_huge(true);
            Ok(u64::from(HUGE))
        })
    }
}

fn failed(why: NoMemory) -> Stop {
    Stop::Failed(why.into())
}
