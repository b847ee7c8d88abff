//! `brk` and the growing stack: the two mappings that extend themselves.

use crate::ctx::CallCx;
use crate::mm::{
    edit::merge::NewRange,
    entry::flags::VmFlags,
    guard::{AfterYield, MmapWriteGuard},
    space::Mm,
    vma::Vma,
};
use crate::{
    addr::{PAGE_SIZE, TASK_SIZE, Vpn, VpnRange},
    error::BeyondTask,
};

/// What the heap and a stack are made of: readable and writable private memory (`VM_DATA_DEFAULT_FLAGS`).
const DATA: VmFlags = VmFlags::READ
    .union(VmFlags::WRITE)
    .union(VmFlags::MAYREAD)
    .union(VmFlags::MAYWRITE)
    .union(VmFlags::MAYEXEC)
    .union(VmFlags::ACCOUNT);

impl Mm {
    /// Says where the heap begins, before its first growth; a whole program's loader does this.
    ///
    /// # Errors
    ///
    /// [`BeyondTask`]: above [`TASK_SIZE`]; nothing changed (`validate_prctl_map_addr`).
    pub fn set_start_brk(&self, cx: &mut CallCx<'_>, addr: u64) -> Result<(), BeyondTask> {
        let addr = BeyondTask::check(addr)?;
        let mut g = self.lock_exclusive(cx);
        g.layout.start_brk = addr;
        g.layout.brk = addr;
        Ok(())
    }
    /// Says where the initial stack is, so that `maps` can name it.
    ///
    /// # Errors
    ///
    /// [`BeyondTask`]: above [`TASK_SIZE`]; nothing changed (`validate_prctl_map_addr`).
    pub fn set_start_stack(&self, cx: &mut CallCx<'_>, addr: u64) -> Result<(), BeyondTask> {
        let addr = BeyondTask::check(addr)?;
        self.lock_exclusive(cx).layout.start_stack = addr;
        Ok(())
    }
    /// Moves the break to `addr` and returns where it is then: `addr`, or the old break if that could not be done
    /// (there is no errno in `brk(2)`; the C library makes ENOMEM of it).
    pub fn brk(&self, cx: &mut CallCx<'_>, addr: u64) -> u64 {
        let mut g = self.lock_exclusive_some(cx);
        while !g.settle_brk(addr) {}
        let grown = g.set_brk(addr);
        let now = g.layout.brk;
        drop(g);
        if let Some(grown) = grown {
            self.populate_best_effort(cx, grown);
        }
        now
    }
}

/// The heap gives up `less`, unless that stays mapped.
struct Shrinking<'a, 'g> {
    guard: &'a mut MmapWriteGuard<'g>,
    less: VpnRange,
}

impl Drop for Shrinking<'_, '_> {
    fn drop(&mut self) {
        let layout = &mut self.guard.layout;
        if !layout.occupied(self.less) {
            layout.brk = layout.brk.min(self.less.start().addr());
        }
    }
}

/// The page at which a heap up to `addr` ends.
fn heap_end(addr: u64) -> Vpn {
    Vpn(addr.div_ceil(PAGE_SIZE))
}

impl MmapWriteGuard<'_> {
    /// [`wait_for_conflicts`](Self::wait_for_conflicts) on what lies between the break and where it goes.
    fn settle_brk(&mut self, addr: u64) -> bool {
        let (old, new) = (heap_end(self.layout.brk), heap_end(addr.min(TASK_SIZE)));
        // A page more, so that two that move the break always meet.
        let range = VpnRange::new(old.min(new), old.max(new).plus(1)).expect("not empty");
        self.wait_for_conflicts(&[range])
    }
    /// Returns the new part if it must be populated.
    fn set_brk(&mut self, addr: u64) -> Option<VpnRange> {
        let layout = &self.layout;
        if addr < layout.start_brk || addr > TASK_SIZE {
            return None;
        }
        let data = addr - layout.start_brk;
        if layout.limits.data != u64::MAX && data > layout.limits.data {
            return None;
        }
        let (old, new) = (heap_end(layout.brk), heap_end(addr));
        if new < old {
            let less = VpnRange::new(new, old)?;
            // Something must be there to be given back.
            if !layout.occupied(less) {
                return None;
            }
            // A driver may panic: the break is where the heap ends in any case.
            let heap = Shrinking { guard: self, less };
            heap.guard.unmap(less, AfterYield::OnlyPages).ok()?;
        } else if let Some(more) = VpnRange::new(old, new) {
            self.grow_heap(more)?;
            self.layout.brk = addr;
            return Some(more).filter(|_| self.layout.def_flags.contains(VmFlags::LOCKED));
        }
        self.layout.brk = addr;
        None
    }

    /// `do_brk_flags`; one page must stay free above.
    fn grow_heap(&mut self, more: VpnRange) -> Option<()> {
        let layout = &self.layout;
        let above = layout.vmas.find(more.start());
        let limit = above.map(|v| layout.start_with_gap(v.start(), v.flags));
        let pages = more.pages();
        let flags = layout.with_merge_all(DATA | layout.def_flags);
        if limit.is_some_and(|limit| more.end().plus(1) > limit)
            || layout.vmas.len() > layout.machine.config().max_map_count
            || (flags.contains(VmFlags::LOCKED) && !layout.may_lock(pages))
            || layout.may_expand(flags, pages).is_err()
        {
            return None;
        }
        layout.charge(pages).ok()?;
        let new = NewRange {
            range: more,
            pgoff: more.start().0,
            flags,
            file: None,
            copied_from: None,
        };
        // What ends where the heap begins is none of it: only a VMA beyond that is extended.
        let start_brk = self.layout.start_brk;
        let heap = self.layout.vmas.before(more.start());
        let extends = heap.is_some_and(|v| v.end().addr() > start_brk);
        if !extends || self.merge_new(&new).is_none() {
            if self.layout.alloc_vma().is_err() {
                self.layout.uncharge(pages);
                return None;
            }
            let vma = Vma::new(more, new.pgoff, flags, None);
            self.layout.insert(vma);
        }
        self.layout.account(flags, pages);
        if flags.contains(VmFlags::LOCKED) {
            self.layout.locked_vm += pages;
        }
        Some(())
    }
}
