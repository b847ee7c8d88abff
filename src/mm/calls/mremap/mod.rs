//! `mremap`: resizes a mapping in place, or moves it: copies the VMA, moves the entries, unmaps the
//! source.
//!
//! | file | holds |
//! | --- | --- |
//! | `moving` | growing in place, and moving to another address |
//! | `itself` | a VMA that moves without a copy |
//! | `relocate` | moving the page-table entries |

mod itself;
pub(in crate::mm) mod moving;
pub(in crate::mm) mod relocate;

use crate::mm::{
    entry::{
        args::{MremapArgs, check_range},
        flags::{MremapFlags, VmFlags},
    },
    guard::{AfterYield, MmapWriteGuard},
    lock::Ranges,
    space::Mm,
    vma::Vma,
};
use crate::{
    addr::{PAGE_SHIFT, PAGE_SIZE, TASK_SIZE, Vpn, VpnRange},
    ctx::CallCx,
    error::{ByteRange, MremapError, VmaError},
    trace,
};

/// The remapping of one mapping (`struct vma_remap_struct`). Lengths are in pages.
#[derive(Clone, Copy, Debug)]
pub(in crate::mm) struct Remap {
    pub(in crate::mm) addr: Vpn,
    pub(in crate::mm) old: u64,
    pub(in crate::mm) new: u64,
    pub(in crate::mm) flags: MremapFlags,
    /// The target's byte address, unchecked: it may lie off a page or anywhere.
    pub(in crate::mm) new_addr: u64,
}

impl Remap {
    pub(in crate::mm) fn has(&self, f: MremapFlags) -> bool {
        self.flags.contains(f)
    }
    /// Returns true if the mapping gets a new address in any case (`vrm_implies_new_addr`).
    pub(in crate::mm) fn moves(&self) -> bool {
        self.flags
            .intersects(MremapFlags::FIXED | MremapFlags::DONTUNMAP)
    }
    pub(in crate::mm) fn source(&self) -> VpnRange {
        VpnRange::new(self.addr, self.addr.plus(self.old)).expect("a moved range has pages")
    }
    /// The pages that are mapped more than before, if the mapping moves.
    fn more(&self) -> u64 {
        match self.has(MremapFlags::DONTUNMAP) {
            true => self.new,
            false => self.new - self.old,
        }
    }
    fn end(&self) -> Vpn {
        self.addr.plus(self.old)
    }
}

impl Mm {
    /// Resizes or moves a mapping; returns its address.
    ///
    /// A move opens two windows over the source, as Linux does: one while the entries move, one
    /// while the source is unmapped.
    ///
    /// # Errors
    ///
    /// [`MremapError`]. Checks come before anything is unmapped. A move of several VMAs keeps the
    /// pieces that were moved before the one that failed.
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::{PAGE_SIZE, mm::{MmapArgs, MremapArgs, MremapFlags}};
    /// # let machine = emmu::Machine::new(Default::default());
    /// # let mut thread = machine.enter()?;
    /// # let mut cx = thread.cx();
    /// # let mm = emmu::Mm::new(&machine);
    ///
    /// let addr = mm.mmap(&mut cx, &MmapArgs::anonymous(PAGE_SIZE))?;
    /// mm.store(&mut cx, addr, 7)?;
    /// let (old_len, new_len) = (PAGE_SIZE, 4 * PAGE_SIZE);
    /// let flags = MremapFlags::MAYMOVE;
    /// let args = MremapArgs { addr, old_len, new_len, flags, new_addr: 0 };
    /// let at = mm.mremap(&mut cx, args)?;
    /// assert_eq!(mm.load(&mut cx, at)?, 7);
    /// assert_eq!(mm.load(&mut cx, at + 3 * PAGE_SIZE)?, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn mremap(&self, cx: &mut CallCx<'_>, args: MremapArgs) -> Result<u64, MremapError> {
        let _call = trace::call("mremap", args.addr, args.old_len);
        let mut g = self.lock_exclusive_some(cx);
        let remap = check_args(&args)?;
        g.layout.vmas.focus(remap.addr);
        while !g.claim_remap(&remap) {}
        let limit = g.layout.machine.config().max_map_count;
        let count = g.layout.vmas.len();
        if remap.moves() && count + 2 >= limit.saturating_sub(3) {
            return Err(VmaError::MapCount { count }.into());
        }
        let (addr, grown) = if remap.has(MremapFlags::FIXED) && remap.old == remap.new {
            (g.remap_move(remap)?, None)
        } else {
            g.remap_one(remap)?
        };
        drop(g);
        if let Some(grown) = grown {
            self.populate_best_effort(cx, grown);
        }
        Ok(addr.addr())
    }
    /// Returns the address at which `mremap` with these arguments would leave the mapping now, as
    /// far as the place decides that.
    ///
    /// # Errors
    ///
    /// [`MremapError`] of the arguments, of the mapping and of the place; makes no other checks.
    pub fn would_remap_to(
        &self,
        cx: &mut CallCx<'_>,
        args: MremapArgs,
    ) -> Result<u64, MremapError> {
        let g = self.lock_exclusive(cx);
        let remap = g.by_huge_pages(check_args(&args)?)?;
        g.check_vma(&remap)?;
        if !remap.moves() && (remap.new <= remap.old || g.can_grow(&remap)) {
            return Ok(args.addr);
        }
        if !remap.has(MremapFlags::MAYMOVE) {
            return Err(MremapError::NoRoom(args.new_len));
        }
        Ok(g.move_target(&remap)?.start().addr())
    }
}

/// Checks the arguments that do not depend on the mapping (`check_mremap_params`).
fn check_args(args: &MremapArgs) -> Result<Remap, MremapError> {
    // A length that wraps when rounded up is 0, as on Linux.
    let pages = |len: u64| len.wrapping_add(PAGE_SIZE - 1) >> PAGE_SHIFT;
    let flags = args.flags;
    let (old, new) = (pages(args.old_len), pages(args.new_len));
    if !MremapFlags::all().contains(flags) {
        return Err(MremapError::Flags(flags.bits()));
    }
    if !args.addr.is_multiple_of(PAGE_SIZE) {
        return Err(MremapError::Unaligned(args.addr));
    }
    if new == 0 || new << PAGE_SHIFT > TASK_SIZE {
        return Err(MremapError::NewLength(args.new_len));
    }
    let remap = Remap {
        addr: Vpn::containing(args.addr),
        old,
        new,
        flags,
        new_addr: args.new_addr,
    };
    if remap.moves() {
        check_target(&remap)?;
    }
    Ok(remap)
}

fn check_target(remap: &Remap) -> Result<(), MremapError> {
    let len = remap.new << PAGE_SHIFT;
    let addr = remap.new_addr;
    if addr > TASK_SIZE - len {
        return Err(MremapError::TooHigh(ByteRange { addr, len }));
    }
    if !addr.is_multiple_of(PAGE_SIZE) {
        return Err(MremapError::Unaligned(addr));
    }
    let resized = remap.has(MremapFlags::DONTUNMAP) && remap.old != remap.new;
    if !remap.has(MremapFlags::MAYMOVE) || resized {
        return Err(MremapError::Flags(remap.flags.bits()));
    }
    // Both ends are 64-bit sums that may wrap, as Linux compares them.
    let old_end = remap
        .addr
        .addr()
        .wrapping_add(remap.old.wrapping_shl(PAGE_SHIFT));
    if old_end > addr && addr + len > remap.addr.addr() {
        return Err(MremapError::Overlap(addr));
    }
    Ok(())
}

/// Does as [`MmapWriteGuard::by_huge_pages`] does, for the mapping `vma`.
fn by_huge_pages_of(vma: &Vma, mut remap: Remap) -> Result<Remap, MremapError> {
    if !vma.flags.contains(VmFlags::HUGETLB) || vma.is_sealed() {
        return Ok(remap);
    }
    let grain = vma.grain();
    remap.old = remap.old.next_multiple_of(grain);
    remap.new = remap.new.next_multiple_of(grain);
    let aligned =
        remap.addr.is_aligned(grain) && remap.new_addr.is_multiple_of(grain << PAGE_SHIFT);
    match aligned && remap.new <= remap.old {
        true => Ok(remap),
        false => Err(MremapError::WholeHugePages(vma.start().addr())),
    }
}

type Remapped = (Vpn, Option<VpnRange>);

impl MmapWriteGuard<'_> {
    /// Declares the pages on which the operation works: the mapping with the part by which it
    /// grows, and its new place. See [`wait_for_conflicts`](Self::wait_for_conflicts).
    fn claim_remap(&mut self, remap: &Remap) -> bool {
        let range = |at: Vpn, pages| VpnRange::new(at, at.plus(pages)).expect("not empty");
        let remap = &self.by_huge_pages(*remap).unwrap_or(*remap);
        let mut own = Ranges::new();
        own.push(range(remap.addr, remap.old.max(remap.new)));
        if remap.has(MremapFlags::FIXED) {
            own.push(range(Vpn::containing(remap.new_addr), remap.new));
        } else if remap.has(MremapFlags::MAYMOVE) && self.check_vma(remap).is_ok() {
            let stays = !remap.moves() && (remap.new <= remap.old || self.can_grow(remap));
            own.extend(self.move_target(remap).ok().filter(|_| !stays));
        }
        self.wait_for_conflicts(&own)
    }
    /// Moves one or more VMAs, with the holes between them, without a change of size (`remap_move`,
    /// Linux 6.17).
    fn remap_move(&mut self, whole: Remap) -> Result<Vpn, MremapError> {
        let missing = MremapError::BadRange(whole.addr.addr());
        let mut first = None;
        let mut target = whole.new_addr;
        let mut last_end = whole.addr;
        let mut at = whole.addr;
        while at < whole.end() {
            let Some(vma) = self.layout.vmas.find(at) else {
                break;
            };
            if vma.start() >= whole.end() {
                break;
            }
            if first.is_none() && vma.start() > at {
                return Err(missing);
            }
            let start = vma.start().max(at);
            let end = vma.end().min(whole.end());
            // Some memory moves alone or not at all (`vma_multi_allowed`).
            let several = first.is_some() || vma.end() < whole.end();
            if several && !vma.moves_with_others() {
                return Err(MremapError::BadRange(start.addr()));
            }
            if several && vma.userfault().is_some() {
                return Err(missing);
            }
            if first.is_some() {
                target += (vma.start().0 - last_end.0) << PAGE_SHIFT;
            }
            last_end = vma.end();
            let piece = Remap {
                addr: start,
                old: end.0 - start.0,
                new: end.0 - start.0,
                new_addr: target,
                ..whole
            };
            let piece = by_huge_pages_of(vma, piece)?;
            self.check_found(vma, &piece)?;
            let to = self.remap_to(piece)?;
            first.get_or_insert(to);
            target = to.plus(piece.new).addr();
            at = end;
        }
        first.ok_or(missing)
    }

    fn remap_one(&mut self, remap: Remap) -> Result<Remapped, MremapError> {
        let remap = self.by_huge_pages(remap)?;
        let locked = self.check_vma(&remap)?;
        let addr = if remap.moves() {
            self.remap_to(remap)?
        } else {
            self.remap_at(remap)?
        };
        let grown = VpnRange::new(addr.plus(remap.old), addr.plus(remap.new)).filter(|_| locked);
        Ok((addr, grown))
    }

    /// Rounds the lengths up to huge pages, if the mapping has such of a pool (`align_hugetlb`).
    /// Its addresses must be aligned, the new one even if it is not used, and it cannot grow.
    fn by_huge_pages(&self, remap: Remap) -> Result<Remap, MremapError> {
        match self.layout.vmas.get(remap.addr) {
            Some(vma) => by_huge_pages_of(vma, remap),
            None => Ok(remap),
        }
    }
    /// Checks the mapping (`check_prep_vma`). Returns true if it is locked.
    pub(in crate::mm) fn check_vma(&self, remap: &Remap) -> Result<bool, MremapError> {
        let bad = MremapError::BadRange(remap.addr.addr());
        let vma = self.layout.vmas.get(remap.addr).ok_or(bad)?;
        self.check_found(vma, remap)
    }
    fn check_found(&self, vma: &Vma, remap: &Remap) -> Result<bool, MremapError> {
        let bad = MremapError::BadRange(remap.addr.addr());
        let at = vma.start().addr();
        let locked = vma.flags.contains(VmFlags::LOCKED);
        if vma.is_sealed() {
            return Err(VmaError::Sealed(at).into());
        }
        if remap.new <= remap.old && !remap.moves() {
            return Ok(locked);
        }
        if remap.old == 0 && !vma.flags.intersects(VmFlags::SHARED | VmFlags::MAYSHARE) {
            return Err(MremapError::NotShared(at));
        }
        let fixed_size = vma.flags.contains(VmFlags::DONTEXPAND);
        if remap.has(MremapFlags::DONTUNMAP) && fixed_size {
            return Err(MremapError::Flags(remap.flags.bits()));
        }
        if remap.old.min(remap.new) > vma.end().0 - remap.addr.0 {
            return Err(bad);
        }
        if remap.new <= remap.old {
            return Ok(locked);
        }
        if vma.pgoff_at(remap.addr).checked_add(remap.new).is_none() {
            return Err(MremapError::OffsetOverflow(at));
        }
        if fixed_size {
            return Err(MremapError::DontExpand(at));
        }
        let more = remap.new - remap.old;
        if locked && !self.layout.may_lock(more) {
            return Err(MremapError::LockLimit(more));
        }
        self.layout.may_expand(vma.flags, more)?;
        Ok(locked)
    }

    /// Remaps without a new address given: stays in place if possible (`mremap_at`).
    fn remap_at(&mut self, remap: Remap) -> Result<Vpn, MremapError> {
        if remap.new == remap.old {
            return Ok(remap.addr);
        }
        if remap.new < remap.old {
            self.shrink(&remap)?;
            return Ok(remap.addr);
        }
        if self.can_grow(&remap) {
            self.grow(&remap)?;
            return Ok(remap.addr);
        }
        if !remap.has(MremapFlags::MAYMOVE) {
            return Err(MremapError::NoRoom(remap.new << PAGE_SHIFT));
        }
        let to = self.move_target(&remap)?;
        self.move_vma(remap, to)
    }

    /// Remaps to a new address (`mremap_to`).
    fn remap_to(&mut self, mut remap: Remap) -> Result<Vpn, MremapError> {
        let bad = MremapError::BadRange(remap.addr.addr());
        if remap.has(MremapFlags::FIXED) {
            let target = Vpn::containing(remap.new_addr);
            let target = VpnRange::new(target, target.plus(remap.new)).expect("new is not 0");
            if self.layout.occupied(target) {
                self.unmap(target, AfterYield::KeepsEditing)?;
                // The VMA may have been cut by a target inside of it.
                self.layout.vmas.get(remap.addr).ok_or(bad)?;
            }
        }
        if remap.new < remap.old {
            self.shrink(&remap)?;
            let vma = self.layout.vmas.get(remap.addr).ok_or(bad)?;
            if vma.flags.contains(VmFlags::ACCOUNT) {
                // Linux charges once more as many pages as were cut off (`vrm_calc_charge`),
                // wherever they were mapped.
                self.layout.charge(remap.old - remap.new)?;
                self.layout.uncharge(remap.old - remap.new);
            }
            remap.old = remap.new;
        }
        if remap.has(MremapFlags::DONTUNMAP) {
            let flags = self.layout.vmas.get(remap.addr).ok_or(bad)?.flags;
            self.layout.may_expand(flags, remap.old)?;
        }
        let to = self.move_target(&remap)?;
        self.move_vma(remap, to)
    }

    fn shrink(&mut self, remap: &Remap) -> Result<(), MremapError> {
        // The tail may extend beyond the VMA, over holes and other VMAs; it is checked as by
        // munmap.
        let addr = remap.addr.plus(remap.new).addr();
        let len = (remap.old - remap.new) << PAGE_SHIFT;
        let range = check_range(addr, len)?;
        Ok(self.unmap(range, AfterYield::KeepsEditing)?)
    }
}
