//! Faulting in a range ahead of use: `MAP_POPULATE`, `mlock`, `MADV_POPULATE_READ` and
//! `MADV_POPULATE_WRITE`.
//!
//! A range is populated under one shared hold of the mmap lock, which is left for each window that
//! a fault defers; the VMAs are looked up anew after that.

use super::{Patience, scope::FaultScope};
use crate::mm::{
    entry::{
        errors::{Errors, PopulateError},
        flags::VmFlags,
        pte::RawPte,
    },
    page_table::LeafAt,
    space::Mm,
    vma::Vma,
};
use crate::{
    addr::{PMD_PAGES, TASK_PAGES, Vpn, VpnRange},
    ctx::CallCx,
    error::{FaultError, HasErrno, NoMemory},
    notifier::Access,
};

impl Mm {
    /// Faults in the mapped pages of `range`, private writable memory for writing
    /// (`__mm_populate`). Passes over holes.
    pub(in crate::mm) fn populate(
        &self,
        cx: &mut CallCx<'_>,
        range: VpnRange,
        errors: Errors,
    ) -> Result<(), FaultError> {
        let done = self.in_turns(cx, range, |held, rest, reached| {
            held.populate_mapped(rest, errors, reached)
        });
        match done {
            Err(_) if errors == Errors::Ignore => Ok(()),
            done => done,
        }
    }
    /// Faults in the pages of `range` that can be had, as after `mmap` and `brk`: an error shows
    /// again at the first access to its page.
    pub(in crate::mm) fn populate_best_effort(&self, cx: &mut CallCx<'_>, range: VpnRange) {
        self.populate(cx, range, Errors::Ignore)
            .expect("errors are ignored");
    }
    /// Runs `f` on the rest of `range` with the mmap lock held shared, again after each window for
    /// which the lock was left, and after reclaim if it met the limit of memory. `f` returns the
    /// page at which it stopped, and notes the page that it has reached: reclaim may take the pages
    /// before that one, which are not made present again.
    pub(in crate::mm) fn in_turns<E: HasErrno>(
        &self,
        cx: &mut CallCx<'_>,
        range: VpnRange,
        mut f: impl FnMut(&mut FaultScope<'_>, VpnRange, &mut Vpn) -> Result<Vpn, E>,
    ) -> Result<(), E> {
        let mut rest = Some(range);
        while let Some(now) = rest {
            let mut reached = now.start();
            let (stopped, deferred) =
                self.with_fault_scope(cx, now, |scope| f(scope, now, &mut reached));
            let next = match stopped {
                Ok(at) => deferred.then_some(at),
                Err(why) if self.machine().make_room(cx, &why) => Some(reached),
                Err(why) => return Err(why),
            };
            rest = next.and_then(|at| VpnRange::new(at, range.end()));
        }
        Ok(())
    }
}

impl FaultScope<'_> {
    fn populate_mapped(
        &mut self,
        range: VpnRange,
        errors: Errors,
        reached: &mut Vpn,
    ) -> Result<Vpn, FaultError> {
        let layout = self.layout;
        for vma in layout.vmas.range(range) {
            let part = vma.range().intersect(range).expect("the VMA overlaps");
            let done = self.populate_vma(vma, part, reached);
            if let (Ok(at), true) = (done, self.has_deferred()) {
                return Ok(at);
            }
            // What met the limit of memory may succeed after reclaim.
            let stops = errors == Errors::Stop || self.lease.mm.machine().mem().is_at_limit();
            if stops {
                done?;
            }
        }
        Ok(range.end())
    }
    /// Populates part of a VMA (`populate_vma_page_range`). Returns the page at which it stopped:
    /// before the end if it deferred a window; `reached` is the one of an error.
    pub(in crate::mm) fn populate_vma(
        &mut self,
        vma: &Vma,
        part: VpnRange,
        reached: &mut Vpn,
    ) -> Result<Vpn, FaultError> {
        if vma.flags.contains(VmFlags::LOCKONFAULT) {
            return Ok(part.end());
        }
        // Private memory is copied now instead of at its first write; shared pages are only mapped.
        let private_writable = vma.flags & (VmFlags::WRITE | VmFlags::SHARED) == VmFlags::WRITE;
        let access = if private_writable {
            Access::Write
        } else {
            Access::Read
        };
        if vma.is_secret() {
            return Err(FaultError::Secret(part.start().addr()));
        }
        if !vma.flags.accessible() {
            return Err(FaultError::Denied(part.start().addr()));
        }
        let mut at = part.start();
        while at < part.end() {
            *reached = at;
            self.make_present(vma, at, access)?;
            if self.has_deferred() {
                return Ok(at);
            }
            at = at.plus(1);
            let single = private_writable && vma.file.is_none() && vma.userfault().is_none();
            if single && self.layout.folio_sizes(vma.flags).is_empty() {
                at = self.fill_leaf(vma, (at, part.end()), reached)?;
            }
        }
        Ok(at)
    }
    /// Populates private anonymous memory for writing from `at` up to `end`, or to the end of the
    /// leaf of the page before `at`, under one lock. Does as [`make_present`](Self::make_present)
    /// does, but only fills empty entries: returns the first page that needs more.
    fn fill_leaf(
        &mut self,
        vma: &Vma,
        (at, end): (Vpn, Vpn),
        reached: &mut Vpn,
    ) -> Result<Vpn, FaultError> {
        let end = at.align_up(PMD_PAGES).min(end);
        if at >= end {
            return Ok(at);
        }
        let mm = self.lease.mm;
        let mem = mm.machine().mem();
        let node = self.layout.anon_of(vma)?;
        let view = mm.table.view(&mut self.lease.cx);
        let Some(leaf) = view.leaf(at).and_then(LeafAt::lock) else {
            return Ok(at);
        };
        let mut at = at;
        while at < end {
            let pte = leaf.get(at);
            if pte.is_present() && pte.may_write() {
                if let Some(pfn) = pte.counted() {
                    mem.mark_accessed(pfn);
                }
                at = at.plus(1);
                continue;
            }
            let empty = VpnRange::new(at, end).expect("at lies below");
            let empty = empty.iter().take_while(|&at| leaf.get(at).is_none());
            let count = empty.count();
            if count == 0 {
                break;
            }
            let owner = node.owner(vma.pgoff_at(at));
            let rights = vma.rights();
            let filled = mem.alloc_mapped(vma.new_anon(), owner, count, |pfn| {
                leaf.set(at, RawPte::frame(pfn, rights).mkdirty());
                at = at.plus(1);
                if mem.has_lru() {
                    mem.lru_add(pfn);
                    mem.mark_accessed(pfn);
                }
            });
            *reached = at;
            filled.map_err(|_| NoMemory::Frame)?;
        }
        Ok(at)
    }
    /// Faults until the page allows the access, or a window is deferred.
    pub(in crate::mm) fn make_present(
        &mut self,
        vma: &Vma,
        at: Vpn,
        access: Access,
    ) -> Result<(), FaultError> {
        let mut patience = Patience::default();
        while !self.is_present(at, access) {
            patience.allow_retry(self.fault(vma, at, access))?;
            if self.has_deferred() {
                return Ok(());
            }
        }
        // A populated page counts as used (`FOLL_TOUCH`).
        let mm = self.lease.mm;
        mm.with_leaf_of(&mut self.lease.cx, at, |leaf| {
            if let Some(pfn) = leaf.get(at).counted() {
                mm.machine().mem().mark_accessed(pfn);
            }
        });
        Ok(())
    }
    fn is_present(&mut self, at: Vpn, access: Access) -> bool {
        let mm = self.lease.mm;
        let view = mm.table.view(&mut self.lease.cx);
        view.leaf(at).is_some_and(|leaf| {
            let pte = leaf.peek(at);
            pte.is_present() && (access == Access::Read || pte.may_write())
        })
    }
    /// Faults in every page of `range` (`faultin_page_range`). Stops at the first hole, missing
    /// right or fault, whose page is `reached`; or where a window is deferred, and returns that
    /// page.
    pub(in crate::mm) fn populate_range(
        &mut self,
        range: VpnRange,
        access: Access,
        reached: &mut Vpn,
    ) -> Result<Vpn, PopulateError> {
        let layout = self.layout;
        let mut at = range.start();
        while at < range.end() {
            let vma = layout.vmas.get(at).ok_or(PopulateError::Hole(at.addr()))?;
            let right = match access {
                Access::Read => VmFlags::READ,
                Access::Write => VmFlags::WRITE,
            };
            if !vma.flags.contains(right) || vma.is_secret() {
                return Err(PopulateError::Denied(at.addr()));
            }
            let part = vma.range().intersect(range).expect("the VMA holds at");
            for page in VpnRange::new(at, part.end()).expect("not empty").iter() {
                *reached = page;
                self.make_present(vma, page, access)
                    .map_err(PopulateError::Fault)?;
                if self.has_deferred() {
                    return Ok(page);
                }
            }
            at = part.end();
        }
        debug_assert!(range.end().0 <= TASK_PAGES);
        Ok(at)
    }
}
