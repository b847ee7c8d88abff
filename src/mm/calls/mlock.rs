//! Locking of memory: `mlock`, `mlock2`, `munlock`, `mlockall`, `munlockall`.
//!
//! A locked page is on no list of reclaim, so it stays in memory. The pages of a locked VMA are
//! faulted in at once, or with `ONFAULT` at their first access.

use super::vma_walk::part_of;
use crate::mm::{
    entry::{
        errors::Errors,
        flags::{MlockFlags, MlockallFlags, VmFlags},
    },
    guard::{AfterYield, MmapWriteGuard},
    large::ownership::is_whole,
    page_table::{LockedLeaf, Pin},
    space::Mm,
    vma::Vma,
    window::Lease,
};
use crate::{
    addr::{PAGE_SHIFT, PAGE_SIZE, Pfn, Vpn, VpnRange},
    ctx::{CallCx, Sleepable, rank},
    error::{ByteRange, MlockError, VmaError},
    frame::{Large, PhysMem},
    trace,
};
use std::convert::Infallible;

impl Mm {
    /// Locks each page that `[addr, addr + len)` touches, and faults the pages in.
    ///
    /// # Errors
    ///
    /// [`MlockError`]; VMAs that were locked before the failure stay locked.
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::{PAGE_SIZE, mm::MmapArgs};
    /// # let machine = emmu::Machine::new(Default::default());
    /// # let mut thread = machine.enter()?;
    /// # let mut cx = thread.cx();
    /// # let mm = emmu::Mm::new(&machine);
    ///
    /// let at = mm.mmap(&mut cx, &MmapArgs::anonymous(2 * PAGE_SIZE))?;
    /// mm.mlock(&mut cx, at, PAGE_SIZE)?;
    /// assert_eq!(mm.mincore(&mut cx, at, 2 * PAGE_SIZE)?, [true, false]);
    /// assert_eq!(mm.sizes(&mut cx), (2, 1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn mlock(&self, cx: &mut CallCx<'_>, addr: u64, len: u64) -> Result<(), MlockError> {
        let _call = trace::call("mlock", addr, len);
        self.lock_range(cx, addr, len, VmFlags::LOCKED)
    }
    /// Locks pages as [`mlock`](Self::mlock) does; with `ONFAULT` each when it is faulted in.
    ///
    /// # Errors
    ///
    /// Like [`mlock`](Self::mlock); also for unknown flags.
    pub fn mlock2(
        &self,
        cx: &mut CallCx<'_>,
        addr: u64,
        len: u64,
        flags: MlockFlags,
    ) -> Result<(), MlockError> {
        if !MlockFlags::all().contains(flags) {
            return Err(MlockError::Flags(flags.bits()));
        }
        let kind = if flags.contains(MlockFlags::ONFAULT) {
            VmFlags::LOCK_MASK
        } else {
            VmFlags::LOCKED
        };
        self.lock_range(cx, addr, len, kind)
    }
    /// Unlocks each page that `[addr, addr + len)` touches.
    ///
    /// # Errors
    ///
    /// [`MlockError`]; VMAs below the failing one stay unlocked.
    pub fn munlock(&self, cx: &mut CallCx<'_>, addr: u64, len: u64) -> Result<(), MlockError> {
        let _call = trace::call("munlock", addr, len);
        let Some(range) = touched(addr, len)? else {
            return Ok(());
        };
        let mut g = self.lock_exclusive_some(cx);
        g.claim_range(range);
        g.set_lock(range, VmFlags::empty())
    }
    /// Locks all mapped memory, all memory mapped from now on, or both.
    ///
    /// # Errors
    ///
    /// [`MlockError`]: unknown flags, a missing right, the limit. VMAs that cannot be locked are
    /// passed over, as on Linux.
    pub fn mlockall(&self, cx: &mut CallCx<'_>, flags: MlockallFlags) -> Result<(), MlockError> {
        if flags.is_empty()
            || flags == MlockallFlags::ONFAULT
            || !MlockallFlags::all().contains(flags)
        {
            return Err(MlockError::Flags(flags.bits()));
        }
        let current = flags.contains(MlockallFlags::CURRENT);
        let mut g = self.lock_exclusive(cx);
        if !g.layout.can_mlock() {
            return Err(MlockError::Denied);
        }
        let total = g.layout.total_vm;
        let limits = g.layout.limits;
        if current && !limits.ipc_lock && total > limits.memlock >> PAGE_SHIFT {
            return Err(MlockError::Limit(total));
        }
        g.set_lock_all(flags);
        drop(g);
        if current {
            self.populate_best_effort(cx, VpnRange::TASK);
        }
        Ok(())
    }
    /// Unlocks all memory, and no longer locks new memory.
    pub fn munlockall(&self, cx: &mut CallCx<'_>) {
        self.lock_exclusive(cx).set_lock_all(MlockallFlags::empty());
    }

    fn lock_range(
        &self,
        cx: &mut CallCx<'_>,
        addr: u64,
        len: u64,
        kind: VmFlags,
    ) -> Result<(), MlockError> {
        let mut g = self.lock_exclusive_some(cx);
        if let Ok(Some(range)) = touched(addr, len) {
            g.claim_range(range);
        }
        if !g.layout.can_mlock() {
            return Err(MlockError::Denied);
        }
        // The limit is checked before the range, as on Linux: a range that wraps may exceed the
        // limit first.
        g.check_lock_limit(addr, len)?;
        let Some(range) = touched(addr, len)? else {
            return Ok(());
        };
        g.set_lock(range, kind)?;
        drop(g);
        Ok(self.populate(cx, range, Errors::Stop)?)
    }
}

/// Returns start and length of the pages that a range of bytes touches. A length that wraps when
/// rounded up is 0, as on Linux.
fn rounded(addr: u64, len: u64) -> (u64, u64) {
    let offset = addr % PAGE_SIZE;
    let len = len.wrapping_add(offset).wrapping_add(PAGE_SIZE - 1) & !(PAGE_SIZE - 1);
    (addr - offset, len)
}

/// Returns the pages that a range of bytes touches; `None` for an empty range.
fn touched(addr: u64, len: u64) -> Result<Option<VpnRange>, MlockError> {
    let (start, bytes) = rounded(addr, len);
    let end = start
        .checked_add(bytes)
        .ok_or(MlockError::Wraps(ByteRange { addr, len }))?;
    Ok(VpnRange::new(Vpn::containing(start), Vpn::containing(end)))
}

impl MmapWriteGuard<'_> {
    /// Checks the limit of locked memory. Pages of the range that are locked already count once.
    fn check_lock_limit(&self, addr: u64, len: u64) -> Result<(), MlockError> {
        let limits = self.layout.limits;
        let already: u64 = touched(addr, len)
            .ok()
            .flatten()
            .into_iter()
            .flat_map(|range| self.layout.vmas.range(range).map(move |v| (v, range)))
            .filter(|(v, _)| v.flags.contains(VmFlags::LOCKED))
            .filter_map(|(v, range)| v.range().intersect(range))
            .map(VpnRange::pages)
            .sum();
        let pages = rounded(addr, len).1 >> PAGE_SHIFT;
        let wanted = self.layout.locked_vm + pages - already;
        if !limits.ipc_lock && wanted > limits.memlock >> PAGE_SHIFT {
            return Err(MlockError::Limit(wanted));
        }
        Ok(())
    }

    /// Locks or unlocks the VMAs of `range` (`apply_vma_lock_flags`).
    fn set_lock(&mut self, range: VpnRange, kind: VmFlags) -> Result<(), MlockError> {
        let mut at = range.start();
        while at < range.end() {
            let vma = self.layout.vmas.get(at);
            let vma = vma.ok_or(MlockError::Hole(at.addr()))?;
            let part = part_of(vma, at, range);
            let start = vma.start();
            let start = self.set_lock_vma(start, part, kind)?;
            at = self.vma(start).end();
        }
        Ok(())
    }
    /// Locks or unlocks part of a VMA (`mlock_fixup`); passes over a VMA that cannot be locked.
    /// Returns the start of the VMA that holds the part then.
    fn set_lock_vma(&mut self, start: Vpn, part: VpnRange, kind: VmFlags) -> Result<Vpn, VmaError> {
        let vma = self.vma(start);
        let old = vma.flags;
        let new = (old - VmFlags::LOCK_MASK) | kind;
        if new == old || vma.is_secret() || !old.may_be_locked() {
            return Ok(start);
        }
        let start = self.modify(start, part, new)?;
        let was = old.contains(VmFlags::LOCKED);
        let is = new.contains(VmFlags::LOCKED);
        if is && !was {
            self.layout.locked_vm += part.pages();
        } else if was && !is {
            self.layout.locked_vm -= part.pages();
        }
        if is != was {
            self.yield_while(part.pages(), AfterYield::KeepsEditing, &[], |lease| {
                lease.mark_unevictable(part, is);
            });
        }
        Ok(start)
    }
    /// Locks or unlocks all VMAs (`apply_mlockall_flags`): without `FUTURE` and `CURRENT` it
    /// unlocks.
    fn set_lock_all(&mut self, flags: MlockallFlags) {
        let mut kind = VmFlags::LOCKED;
        if flags.contains(MlockallFlags::ONFAULT) {
            kind |= VmFlags::LOCKONFAULT;
        }
        self.layout.def_flags -= VmFlags::LOCK_MASK;
        if flags.contains(MlockallFlags::FUTURE) {
            self.layout.def_flags |= kind;
            if !flags.contains(MlockallFlags::CURRENT) {
                return;
            }
        }
        if flags.is_empty() {
            kind = VmFlags::empty();
        }
        let mut next = self.layout.vmas.first().map(Vma::range);
        while let Some(vma) = next {
            let done = self.set_lock_vma(vma.start(), vma, kind);
            let end = done.map_or(vma.end(), |start| self.vma(start).end());
            next = self.layout.vmas.find(end).map(Vma::range);
        }
    }
}

impl Lease<'_, rank::Mmap, Sleepable> {
    /// Takes the pages of the range off the lists of reclaim, or puts them back
    /// (`mlock_vma_pages_range`).
    pub(super) fn mark_unevictable(mut self, part: VpnRange, locked: bool) {
        let mm = self.mm;
        mm.machine().mem().drain_batches();
        let view = mm.table.view(&mut self.cx);
        mark_unevictable(mm, view.pin(), part, locked);
    }
}

/// Returns true if a page is locked with the others of `part`: a large page of private memory is
/// locked only as a whole (`allow_mlock_munlock`). The answer is the same for all parts of a page
/// in a row, so the `last` one is kept, with the place of the first part.
fn is_locked_with(
    mem: &PhysMem,
    leaf: &LockedLeaf<'_>,
    part: VpnRange,
    (at, pfn): (Vpn, Pfn),
    last: &mut Option<(Large, u64, bool)>,
) -> bool {
    let Some(page) = mem.private_large(pfn) else {
        return true;
    };
    let first = at.0.wrapping_sub(page.place(pfn).into());
    if let Some((of, from, whole)) = *last
        && (of, from) == (page, first)
    {
        return whole;
    }
    let whole = is_whole(leaf, part, at, (page, pfn));
    *last = Some((page, first, whole));
    whole
}

/// Takes the mapped pages of `part` off the lists of reclaim, or puts them back. Needs no lock of
/// the address space: its end uses this too.
pub(in crate::mm) fn mark_unevictable(mm: &Mm, pin: Pin<'_>, part: VpnRange, locked: bool) {
    let mem = mm.machine().mem();
    mm.table
        .leaves(part, pin, |part, leaf| {
            let Some(leaf) = leaf.lock() else {
                return Ok(());
            };
            let mut last = None;
            for at in part.iter() {
                let Some(pfn) = leaf.get(at).counted() else {
                    continue;
                };
                if !locked {
                    mem.lru_unlock(pfn);
                } else if is_locked_with(mem, &leaf, part, (at, pfn), &mut last) {
                    mem.lru_lock(pfn);
                }
            }
            Ok::<(), Infallible>(())
        })
        .unwrap_or_else(|e| match e {});
}
