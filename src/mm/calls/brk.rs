//! `brk`: the heap, a mapping that one call extends and shortens.

use crate::mm::{
    edit::merge::NewRange,
    entry::flags::VmFlags,
    guard::{AfterYield, MmapWriteGuard},
    space::Mm,
    vma::{Vma, extras::Extras},
};
use crate::{
    addr::{PAGE_SIZE, TASK_SIZE, Vpn, VpnRange},
    ctx::CallCx,
    error::BeyondTask,
    trace,
};

/// The flags of the heap: readable and writable private memory (`VM_DATA_DEFAULT_FLAGS`).
const DATA: VmFlags = VmFlags::READ
    .union(VmFlags::WRITE)
    .union(VmFlags::MAYREAD)
    .union(VmFlags::MAYWRITE)
    .union(VmFlags::MAYEXEC)
    .union(VmFlags::ACCOUNT);

impl Mm {
    /// Sets the start of the heap, before its first growth, as the loader of a program does.
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
    /// Sets the address of the initial stack, which `maps` then names `[stack]`.
    ///
    /// # Errors
    ///
    /// [`BeyondTask`]: above [`TASK_SIZE`]; nothing changed (`validate_prctl_map_addr`).
    pub fn set_start_stack(&self, cx: &mut CallCx<'_>, addr: u64) -> Result<(), BeyondTask> {
        let addr = BeyondTask::check(addr)?;
        self.lock_exclusive(cx).layout.start_stack = addr;
        Ok(())
    }
    /// Moves the break to `addr` and returns its new place: `addr`, or the old break if the call
    /// failed. `brk(2)` has no errno; the C library reports ENOMEM.
    ///
    /// # Examples
    ///
    /// ```
    /// # let machine = emmu::Machine::new(Default::default());
    /// # let mut thread = machine.enter()?;
    /// # let mut cx = thread.cx();
    /// # let mm = emmu::Mm::new(&machine);
    /// mm.set_start_brk(&mut cx, 0x5000_0000)?;
    /// assert_eq!(mm.brk(&mut cx, 0x5000_1800), 0x5000_1800);
    /// mm.store(&mut cx, 0x5000_17ff, 7)?;
    /// assert_eq!(mm.brk(&mut cx, 0), 0x5000_1800); // below the start: the break stays
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn brk(&self, cx: &mut CallCx<'_>, addr: u64) -> u64 {
        let _call = trace::call("brk", addr, 0);
        let mut g = self.lock_exclusive_some(cx);
        while !g.claim_brk(addr) {}
        let grown = g.set_brk(addr);
        let now = g.layout.brk;
        drop(g);
        if let Some(grown) = grown {
            self.populate_best_effort(cx, grown);
        }
        now
    }
}

/// The heap gives up the pages `less`. When this is dropped, the break is at their start, unless
/// they are still mapped.
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

/// Returns the page at which a heap up to byte `addr` ends.
fn heap_end(addr: u64) -> Vpn {
    Vpn(addr.div_ceil(PAGE_SIZE))
}

impl MmapWriteGuard<'_> {
    /// Declares the pages between the old break and the new as those on which the operation works;
    /// see [`wait_for_conflicts`](Self::wait_for_conflicts).
    fn claim_brk(&mut self, addr: u64) -> bool {
        let (old, new) = (heap_end(self.layout.brk), heap_end(addr.min(TASK_SIZE)));
        // With one page more, so that two calls that move the break always conflict.
        let range = VpnRange::new(old.min(new), old.max(new).plus(1)).expect("not empty");
        self.wait_for_conflicts(&[range])
    }
    /// Moves the break; returns the new part of the heap if that must be populated.
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
            // Linux refuses to give back pages of which none is mapped.
            if !layout.occupied(less) {
                return None;
            }
            // A driver may panic: the break must be at the end of the heap all the same.
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

    /// Extends the heap by `more` (`do_brk_flags`). One page must stay free above.
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
            extras: Extras::default(),
        };
        // A VMA that ends at the start of the heap is not part of it: only a VMA beyond is
        // extended.
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
