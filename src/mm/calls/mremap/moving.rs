//! The two ways in which `mremap` gets more room: growing in place, and moving.

use super::{
    Remap,
    relocate::{Moved, Relocation},
};
use crate::mm::{
    edit::{
        merge::NewRange,
        placement::{AddrRequest, Area, Huge, Place},
    },
    entry::{
        flags::{MremapFlags, VmFlags},
        uffd_flags::UffdFeatures,
    },
    guard::{AfterYield, MmapWriteGuard},
    vma::{Vma, layout::Promise, userfault::Context},
};
use crate::{
    addr::{PAGE_SHIFT, TASK_PAGES, Vpn, VpnRange},
    error::{MremapError, NoMemory, VmaError},
};
use std::sync::Arc;

impl<'g> MmapWriteGuard<'g> {
    /// Returns true if the range ends with its VMA and nothing is mapped behind it
    /// (`vrm_can_expand_in_place`).
    pub(in crate::mm) fn can_grow(&self, remap: &Remap) -> bool {
        let vma = self.layout.vmas.get(remap.addr).expect("checked before");
        let end = remap.addr.plus(remap.new);
        vma.end() == remap.addr.plus(remap.old)
            && end.0 <= TASK_PAGES
            && VpnRange::new(vma.end(), end).is_some_and(|more| !self.layout.occupied(more))
    }
    /// Extends the VMA, which then may merge with the next (`expand_vma_in_place`).
    pub(in crate::mm) fn grow(&mut self, remap: &Remap) -> Result<(), MremapError> {
        let more = remap.new - remap.old;
        let vma = self.layout.vmas.get(remap.addr).expect("checked before");
        let flags = vma.flags;
        let promise = self.charge_move(flags, more)?;
        let new = NewRange {
            range: VpnRange::new(vma.end(), vma.end().plus(more)).expect("it grows"),
            pgoff: vma.pgoff_end(),
            flags,
            file: vma.file.clone(),
            copied_from: Some(vma.start()),
            extras: vma.extras.clone(),
        };
        if self.merge_new(&new).is_none() {
            return Err(MremapError::NoRoom(remap.new << PAGE_SHIFT));
        }
        promise.keep();
        self.account_moved(flags, more);
        Ok(())
    }
    /// Charges `pages` more if a mapping with these flags is accounted.
    fn charge_move(&self, flags: VmFlags, pages: u64) -> Result<Promise<'g>, MremapError> {
        let accounted = flags.contains(VmFlags::ACCOUNT);
        let pages = if accounted { pages } else { 0 };
        self.layout.charge(pages)?;
        Ok(Promise::made(self.mm.machine(), pages))
    }
    fn account_moved(&mut self, flags: VmFlags, pages: u64) {
        self.layout.account(flags, pages);
        if flags.contains(VmFlags::LOCKED) {
            self.layout.locked_vm += pages;
        }
    }

    /// Returns the target of a move (`vrm_set_new_addr`): the fixed place, the hint, or any; the
    /// source is still mapped.
    pub(in crate::mm) fn move_target(&self, remap: &Remap) -> Result<VpnRange, MremapError> {
        let request = if remap.has(MremapFlags::FIXED) {
            AddrRequest::Fixed(remap.new_addr)
        } else if remap.has(MremapFlags::DONTUNMAP) {
            AddrRequest::Hint(remap.new_addr)
        } else {
            AddrRequest::Hint(0)
        };
        let huge = match request {
            AddrRequest::Fixed(_) => Huge::No,
            AddrRequest::Hint(_) => {
                let vma = self.layout.vmas.get(remap.addr).expect("checked before");
                let pgoff = vma.pgoff_at(remap.addr);
                self.layout.huge(vma.file.as_ref(), true, pgoff)
            }
        };
        self.layout
            .place(Place {
                request,
                pages: remap.new,
                huge,
                area: Area::All,
            })
            .map_err(|_| MremapError::NoRoom(remap.new << PAGE_SHIFT))
    }

    /// Moves a mapping to `to` (`move_vma`). A failure half-way moves everything back.
    pub(in crate::mm) fn move_vma(
        &mut self,
        remap: Remap,
        to: VpnRange,
    ) -> Result<Vpn, MremapError> {
        let count = self.layout.vmas.len();
        if count >= self.layout.machine.config().max_map_count.saturating_sub(3) {
            return Err(VmaError::MapCount { count }.into());
        }
        let vma = self.layout.vmas.get(remap.addr).expect("checked before");
        let (context, flags) = (vma.userfault().cloned(), vma.flags);
        // The reverse map of a merged page goes by its place, whether the mapping is mergeable or
        // not: `Machine::merge_same_pages` merges pages of all private memory.
        if self.mm.machine().merged.any()
            && let Some(part) = VpnRange::new(remap.addr, remap.addr.plus(remap.old))
        {
            self.unmerge_part(part)?;
        }
        let promise = self.charge_move(flags, remap.more())?;
        match self.copy_vma(&remap, to)? {
            Some(new_vma) => self.move_to_copy(remap, (to, new_vma), flags, promise, context)?,
            None => self.move_itself(remap.source(), to)?,
        }
        Ok(to.start())
    }
    /// Moves the pages of a VMA with these flags to its copy, and unmaps the source.
    fn move_to_copy(
        &mut self,
        remap: Remap,
        (to, new_vma): (VpnRange, Vpn),
        flags: VmFlags,
        promise: Promise<'g>,
        context: Option<Arc<Context>>,
    ) -> Result<(), VmaError> {
        let mut copy = Copied {
            guard: self,
            remap,
            to,
            new_vma,
            state: CopyState::Moved(Moved::Nothing),
        };
        let moved = copy.move_entries();
        copy.guard.account_moved(flags, to.pages());
        promise.keep();
        if let Err(why) = moved {
            copy.state = CopyState::Done;
            drop(copy);
            self.remove_copy(&remap, to);
            return Err(VmaError::NoMemory(why));
        }
        copy.state = CopyState::Counted;
        if flags.contains(VmFlags::HUGETLB) {
            copy.hand_over();
        }
        if let Some(context) = context {
            copy.guard.tell_moved(&context, (&remap, to), copy.new_vma);
        }
        if !remap.has(MremapFlags::DONTUNMAP) {
            copy.guard.unmap_source(&remap, flags);
            copy.state = CopyState::Done;
        }
        Ok(())
    }

    /// Makes the VMA at the target, merged with its neighbours if it fits (`copy_vma`). Returns its
    /// start; `None` if nothing was made, since the source itself can move there.
    fn copy_vma(&mut self, remap: &Remap, to: VpnRange) -> Result<Option<Vpn>, VmaError> {
        let vma = self.layout.vmas.get(remap.addr).expect("checked before");
        let new = NewRange {
            range: to,
            pgoff: pgoff_at_target(vma, remap.addr, to),
            flags: vma.flags,
            file: vma.file.clone(),
            copied_from: Some(vma.start()),
            extras: vma.extras.clone(),
        };
        let itself = can_move_itself(vma, remap);
        if let Some(start) = self.merge_new(&new) {
            return Ok(Some(start));
        }
        self.layout.alloc_vma()?;
        let (table, cx) = (&self.mm.table, &mut self.cx);
        if itself && table.moves_at_once(remap.source(), to, cx) {
            return Ok(None);
        }
        let vma = self.layout.vmas.get(remap.addr).expect("not merged");
        let copy = vma.dup(to, new.pgoff);
        self.layout.insert(copy);
        Ok(Some(to.start()))
    }
    /// Removes the copy, which has no pages. This cannot fail: an error has to leave the source and
    /// the copy's neighbours as they were, even if the copy had merged with those.
    fn remove_copy(&mut self, remap: &Remap, to: VpnRange) {
        self.cut_out(to);
        let accounted = self.layout.vmas.get(remap.addr).expect("still mapped");
        let accounted = accounted.flags.contains(VmFlags::ACCOUNT);
        let promise = Promise::made(self.mm.machine(), if accounted { remap.more() } else { 0 });
        self.complete_unmap_empty(to, false, AfterYield::KeepsEditing);
        drop(promise);
    }

    /// Unmaps the source, which has these flags (`unmap_source_vma`). Its promise of memory has
    /// passed to the copy.
    fn unmap_source(&mut self, remap: &Remap, flags: VmFlags) {
        if remap.old == 0 {
            return;
        }
        let range = remap.source();
        let accounted = flags.contains(VmFlags::ACCOUNT);
        match self.gather(range) {
            Ok(gathered) => {
                let told = self.watchers(range, &gathered);
                self.complete_unmap_empty(range, !accounted, AfterYield::KeepsEditing);
                if let Some(told) = told {
                    told.send();
                }
            }
            // No memory for the split: the source stays, without pages, and needs a promise of its
            // own.
            Err(_) if accounted => self.layout.machine.commit().force(range.pages()),
            Err(_) => {}
        }
    }
    /// Leaves the source mapped, unlocked, and without its family if all of it was copied
    /// (`dontunmap_complete`).
    fn leave_source(&mut self, remap: &Remap, new_vma: Vpn) {
        let source = remap.source();
        let vma = self.layout.vmas.get(remap.addr).expect("still mapped");
        let (start, whole) = (vma.start(), vma.range());
        // The pages of the source stay counted as locked, though nothing ever uncounts them: this
        // is Linux's account, which counts the copy as well, and against which `RLIMIT_MEMLOCK` is
        // checked.
        self.layout.change(start, |v| {
            v.flags -= VmFlags::LOCK_MASK;
            if new_vma != start && whole == source {
                drop(v.anon.take());
            }
        });
    }
}

/// Returns true if the VMA can change its place: all of it moves, and nothing stays behind or
/// depends on its address but its entries.
fn can_move_itself(vma: &Vma, remap: &Remap) -> bool {
    let all = vma.start() == remap.addr && vma.pages() == remap.old;
    all && remap.old == remap.new
        && !remap.has(MremapFlags::DONTUNMAP)
        && !vma.flags.intersects(VmFlags::HUGETLB | VmFlags::NONLINEAR)
        && vma.userfault().is_none()
}

/// Returns the page offset that `at`, a page of `vma`, has at the target of a move. Without pages
/// yet, it may follow the address, which gives better chances to merge.
pub(super) fn pgoff_at_target(vma: &Vma, at: Vpn, to: VpnRange) -> u64 {
    match vma.is_anonymous() && vma.anon.get().is_none() {
        true => to.start().0,
        false => vma.pgoff_at(at),
    }
}

/// Returns true if the memory is registered with userfaultfd and does not stay so by a move.
fn drops_marks(vma: &Vma) -> bool {
    vma.userfault().is_some() && vma.userfault_told(UffdFeatures::EVENT_REMAP).is_none()
}

/// The state of the copy of a VMA that is moved.
enum CopyState {
    /// In no account yet; the new place has these pages.
    Moved(Moved),
    /// Complete: all pages are at the new place, and the accounts know it.
    Counted,
    /// The source is unmapped or left as well.
    Done,
}

/// The copy of a VMA is in the layout. If a driver panics before the pages moved, the copy is
/// removed again; if after that, the source is (ADR 0024).
struct Copied<'a, 'g> {
    guard: &'a mut MmapWriteGuard<'g>,
    remap: Remap,
    to: VpnRange,
    new_vma: Vpn,
    state: CopyState,
}

impl Copied<'_, '_> {
    fn move_entries(&mut self) -> Result<(), NoMemory> {
        if self.remap.old == 0 {
            return Ok(()); // Duplicated, not moved: pages fault in from the object.
        }
        let source = self.remap.source();
        self.guard.layout.vmas.focus(source.start());
        // The source may have merged with its copy meanwhile.
        let old_vma = self.guard.layout.vmas.get(self.remap.addr);
        let old_vma = old_vma.expect("still mapped");
        let mv = Relocation {
            old_vma: old_vma.range(),
            new_vma: self.guard.vma(self.new_vma).range(),
            from: source,
            to: self.to.start(),
            unprotects: drops_marks(old_vma),
            itself: None,
        };
        let state = &mut self.state;
        self.guard
            .relocate(mv, |moved| *state = CopyState::Moved(moved))
    }
    /// Gives the reservation of moved huge pages to the copy. Pages of the source that did not move
    /// stay promised, but to no mapping, as on Linux (`clear_vma_resv_huge_pages`).
    fn hand_over(&mut self) {
        let layout = &mut self.guard.layout;
        let source = layout.vmas.get(self.remap.addr);
        let source = source.filter(|vma| vma.is_owner()).map(Vma::start);
        let reserve = source.and_then(|start| layout.change(start, |vma| vma.reserve.take()));
        let Some(mut reserve) = reserve else {
            return;
        };
        layout.change(self.new_vma, |vma| {
            let first = vma.huge_index(vma.start());
            reserve.narrow(first..first + vma.pages() / vma.grain());
            vma.reserve = Some(reserve);
        });
    }
    /// Puts the copy into the accounts, with a promise of its own, since the caller's is taken
    /// back.
    fn count(&mut self, promised: u64) {
        let vma = self.guard.layout.vmas.get(self.to.start());
        let flags = vma.expect("in the layout").flags;
        self.guard.account_moved(flags, self.to.pages());
        if flags.contains(VmFlags::ACCOUNT) {
            self.guard.layout.machine.commit().force(promised);
        }
    }
    /// Ends a move whose source maps nothing any more; the source's promise is the copy's.
    fn finish(&mut self) {
        if self.remap.has(MremapFlags::DONTUNMAP) {
            return self.guard.leave_source(&self.remap, self.new_vma);
        }
        let source = (self.remap.old > 0).then(|| self.remap.source());
        let source = source.filter(|&source| self.guard.layout.occupied(source));
        if let Some(source) = source {
            let vma = self.guard.layout.vmas.get(source.start());
            let flags = vma.expect("not unmapped yet").flags;
            self.guard.drop_empty(source);
            self.guard.layout.unaccount(flags, source.pages());
            if flags.contains(VmFlags::LOCKED) {
                self.guard.layout.locked_vm -= source.pages();
            }
        }
    }
}

impl Drop for Copied<'_, '_> {
    fn drop(&mut self) {
        match self.state {
            CopyState::Done => {}
            CopyState::Counted => self.finish(),
            CopyState::Moved(Moved::Nothing) => self.guard.drop_empty(self.to),
            CopyState::Moved(Moved::Some) => self.count(self.to.pages()),
            CopyState::Moved(Moved::All) => {
                self.hand_over();
                let apart = self.remap.has(MremapFlags::DONTUNMAP);
                let passed_on = if apart { 0 } else { self.remap.old };
                self.count(self.to.pages() - passed_on);
                self.finish();
            }
        }
    }
}
