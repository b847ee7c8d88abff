//! `mprotect`: changes and merges the flags of VMA after VMA, then the entries in a window.

use super::{change_protection::VmaProtection, vma_walk::part_of};
use crate::mm::{
    entry::{
        flags::{Prot, VmFlags},
        pte::Rights,
    },
    fault::scope::FaultScope,
    guard::{AfterYield, MmapWriteGuard},
    space::Mm,
    vma::layout::Promise,
};
use crate::{
    addr::{PAGE_SIZE, Vpn, VpnRange},
    ctx::CallCx,
    error::{ByteRange, LimitError, MprotectError},
    trace,
};

impl Mm {
    /// Changes the rights of `[addr, addr + len)`, `len` rounded up to pages.
    ///
    /// # Errors
    ///
    /// [`MprotectError`]. An error of a single VMA, or a hole, shows when the walk gets there: the
    /// memory below has been changed, and stays so.
    ///
    /// # Panics
    ///
    /// If a driver does. Then the VMA in whose window it panicked still has the rights that were to
    /// be taken away.
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::{PAGE_SIZE, Signal, mm::{MmapArgs, Prot}};
    /// # let machine = emmu::Machine::new(Default::default());
    /// # let mut thread = machine.enter()?;
    /// # let mut cx = thread.cx();
    /// # let mm = emmu::Mm::new(&machine);
    /// let at = mm.mmap(&mut cx, &MmapArgs::anonymous(PAGE_SIZE))?;
    /// mm.mprotect(&mut cx, at, PAGE_SIZE, Prot::READ)?;
    /// let refused = mm.store(&mut cx, at, 7).unwrap_err();
    /// assert_eq!(refused.signal(), Some(Signal::Segv));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn mprotect(
        &self,
        cx: &mut CallCx<'_>,
        addr: u64,
        len: u64,
        prot: Prot,
    ) -> Result<(), MprotectError> {
        let _call = trace::call("mprotect", addr, len);
        self.protect_range(cx, (addr, len), prot, NO_KEY)
    }
    /// Changes rights, and gives the range a protection key, of which no other than [`NO_KEY`]
    /// exists; the key is looked at after the arguments (`do_mprotect_pkey`).
    pub(super) fn protect_range(
        &self,
        cx: &mut CallCx<'_>,
        (addr, len): (u64, u64),
        prot: Prot,
        key: i32,
    ) -> Result<(), MprotectError> {
        let Some(range) = check_args(addr, len, prot)? else {
            return Ok(());
        };
        if key != NO_KEY {
            return Err(MprotectError::Key(key));
        }
        let mut g = self.lock_exclusive_some(cx);
        let range = loop {
            let range = g.grow_range(range, prot)?;
            if g.wait_for_conflicts(&[range]) {
                break range;
            }
        };
        g.protect(range, prot)
    }
}

/// The number that names no protection key.
pub(super) const NO_KEY: i32 = -1;

/// Checks the arguments before the lock is taken; `None`: nothing to do.
fn check_args(addr: u64, len: u64, prot: Prot) -> Result<Option<VpnRange>, MprotectError> {
    /// Accepted and ignored.
    const SEM: Prot = Prot::from_bits_retain(8);
    let known = Prot::all() | SEM;
    if prot.contains(Prot::GROWSDOWN | Prot::GROWSUP) {
        return Err(MprotectError::Prot(prot.bits()));
    }
    if !addr.is_multiple_of(PAGE_SIZE) {
        return Err(MprotectError::Unaligned(addr));
    }
    if len == 0 {
        return Ok(None);
    }
    let wraps = MprotectError::Wraps(ByteRange { addr, len });
    let end = len
        .checked_next_multiple_of(PAGE_SIZE)
        .and_then(|len| addr.checked_add(len))
        .ok_or(wraps)?;
    if !known.contains(prot) {
        return Err(MprotectError::Prot(prot.bits()));
    }
    Ok(VpnRange::new(Vpn::containing(addr), Vpn::containing(end)))
}

/// The change of rights of one VMA.
#[derive(Clone, Copy)]
struct Change {
    part: VpnRange,
    old: VmFlags,
    new: VmFlags,
    charged: u64,
}

/// A VMA has new rights, and its entries are being changed.
///
/// A driver's panic may keep a window from opening, so that some entries keep the old rights; a VMA
/// must allow at least the rights of its entries (ADR 0024). So rights that were taken away come
/// back, and rights that were given stay: reading at once, writing by a fault.
struct Changing<'a, 'g> {
    guard: &'a mut MmapWriteGuard<'g>,
    change: Change,
    done: bool,
}

impl Changing<'_, '_> {
    fn takes_rights(&self) -> bool {
        let rights = |flags: VmFlags| (flags.accessible(), flags.contains(VmFlags::WRITE));
        rights(self.change.new) < rights(self.change.old)
    }
    #[cold]
    fn undo(&mut self) {
        let Change {
            part,
            old,
            new,
            charged,
        } = self.change;
        let guard = &mut *self.guard;
        guard.cut_out(part);
        guard.layout.change(part.start(), |vma| vma.flags = old);
        if old.accessible() {
            guard.make_readable(part);
        }
        guard.layout.reaccount(new, old, part.pages());
        guard.layout.uncharge(charged);
    }
}

impl Drop for Changing<'_, '_> {
    fn drop(&mut self) {
        if !self.done && self.takes_rights() {
            return self.undo();
        }
        let Change { part, old, new, .. } = self.change;
        if !self.done && new.accessible() && !old.accessible() {
            // A fault makes a readable entry writable, but never a present entry readable.
            self.guard.make_readable(part);
        }
        if old.contains(VmFlags::ACCOUNT) && !new.contains(VmFlags::ACCOUNT) {
            self.guard.layout.uncharge(part.pages());
        }
    }
}

impl<'g> MmapWriteGuard<'g> {
    /// Returns the range to be changed: `PROT_GROWSDOWN` adds the stack below the range. Fails if
    /// the start is not mapped.
    fn grow_range(&self, range: VpnRange, prot: Prot) -> Result<VpnRange, MprotectError> {
        let hole = MprotectError::Hole(range.start().addr());
        let vma = self.layout.vmas.find(range.start()).ok_or(hole)?;
        let start = vma.start();
        if prot.contains(Prot::GROWSDOWN) {
            if start >= range.end() {
                return Err(hole);
            }
            if !vma.flags.contains(VmFlags::GROWSDOWN) {
                return Err(MprotectError::NotGrowing(start.addr()));
            }
            return Ok(VpnRange::new(start, range.end()).expect("start lies below the end"));
        }
        if start > range.start() {
            return Err(hole);
        }
        if prot.contains(Prot::GROWSUP) {
            return Err(MprotectError::NotGrowing(start.addr()));
        }
        Ok(range)
    }

    fn protect(&mut self, range: VpnRange, prot: Prot) -> Result<(), MprotectError> {
        let mut at = range.start();
        while at < range.end() {
            let vma = self.layout.vmas.get(at);
            let vma = vma.ok_or(MprotectError::Hole(at.addr()))?;
            let new = vma.flags.with_prot(prot);
            if !may_have(vma.flags, new) {
                return Err(MprotectError::Denied(vma.start().addr()));
            }
            let part = part_of(vma, at, range);
            let start = vma.start();
            let then = match part.end() == range.end() {
                true => AfterYield::OnlyPages,
                false => AfterYield::KeepsEditing,
            };
            let start = self.protect_vma(start, part, new, then)?;
            // The VMA may have merged with the next.
            at = self.vma(start).end();
        }
        Ok(())
    }

    /// Changes the rights of `part` of a VMA (`mprotect_fixup`). Returns the start of the VMA that
    /// holds the part then.
    fn protect_vma(
        &mut self,
        start: Vpn,
        part: VpnRange,
        new: VmFlags,
        then: AfterYield,
    ) -> Result<Vpn, MprotectError> {
        let vma = self.vma(start);
        let old = vma.flags;
        if vma.is_sealed() {
            return Err(crate::error::VmaError::Sealed(start.addr()).into());
        }
        if new == old {
            return Ok(start);
        }
        let (change, promise) = self.charge_change(start, part, new)?;
        let start = self.modify(start, part, change.new)?;
        promise.keep();
        self.layout.reaccount(old, change.new, part.pages());
        let mut changing = Changing {
            guard: self,
            change,
            done: false,
        };
        let Changing { guard, done, .. } = &mut changing;
        guard.change_protection(start, part, then, done);
        drop(changing);
        self.populate_locked(start, &change);
        Ok(start)
    }
    /// Charges the pages of a private mapping that becomes writable; gives back the charge of one
    /// that was never written and becomes read-only.
    fn charge_change(
        &self,
        start: Vpn,
        part: VpnRange,
        new: VmFlags,
    ) -> Result<(Change, Promise<'g>), LimitError> {
        let vma = self.vma(start);
        let old = vma.flags;
        let mut change = Change {
            part,
            old,
            new,
            charged: 0,
        };
        let pages = part.pages();
        if new.contains(VmFlags::WRITE) {
            // The limit of data refuses memory that becomes data, not memory that is data already.
            if self.layout.may_expand(old, pages).is_ok() {
                self.layout.may_expand(new, pages)?;
            }
        }
        let unwritten = vma.is_anonymous() && vma.anon.get().is_none();
        change.new = accounted(old, new, unwritten);
        if (change.new - old).contains(VmFlags::ACCOUNT) {
            self.layout.charge(pages)?;
            change.charged = pages;
        }
        let promise = Promise::made(self.mm.machine(), change.charged);
        Ok((change, promise))
    }
    /// Makes present entries readable. No window is needed: every translation that an external MMU
    /// may hold stays right.
    fn make_readable(&mut self, part: VpnRange) {
        let rights = Rights {
            read: true,
            write: false,
        };
        let mm = self.mm;
        mm.for_each_locked_leaf(&mut self.cx, part, |part, leaf| {
            for at in part.iter() {
                let pte = leaf.get(at);
                if pte.is_present() && !pte.may_read() {
                    leaf.set(at, pte.with_rights(rights));
                }
            }
        });
    }
    fn populate_locked(&mut self, start: Vpn, change: &Change) {
        let Change { part, old, new, .. } = *change;
        let locked_read_only = old & (VmFlags::WRITE | VmFlags::SHARED | VmFlags::LOCKED);
        if locked_read_only == VmFlags::LOCKED && new.contains(VmFlags::WRITE) {
            // Locked memory that becomes writable is copied now, so that later writes do not fault.
            self.yield_while_reading(|layout, lease| {
                let mut held = FaultScope::new(layout, lease);
                let vma = layout.vmas.get(start).expect("just changed");
                // A failure shows at the access, as on Linux.
                let _best_effort = held.populate_vma(vma, part, &mut part.start());
            });
        }
    }

    /// Changes the entries of `part` (`change_protection`): in each 512-GiB block one window, from
    /// the first GiB with a table to the end. Huge pages of a pool have one window in any case
    /// (`hugetlb_change_protection`).
    fn change_protection(&mut self, start: Vpn, part: VpnRange, then: AfterYield, done: &mut bool) {
        let vma = self.vma(start);
        let new = VmaProtection::of(vma, part);
        self.yield_while(part.pages(), then, &[], |lease| {
            lease
                .protect(new, done)
                .expect("only markers need new tables");
        });
    }
}

/// Returns true if a VMA with flags `old` may get the rights in `new`.
pub(super) fn may_have(old: VmFlags, new: VmFlags) -> bool {
    let may = VmFlags::from_bits_retain(old.bits() >> 4) & VmFlags::ACCESS;
    may.contains(new & VmFlags::ACCESS)
}

/// Returns the flags `new` of a VMA whose rights change: private memory that becomes writable is
/// accounted, and memory that becomes read-only no longer is, if it is anonymous and `unwritten`.
pub(super) fn accounted(old: VmFlags, new: VmFlags, unwritten: bool) -> VmFlags {
    let exempt =
        VmFlags::ACCOUNT | VmFlags::WRITE | VmFlags::HUGETLB | VmFlags::SHARED | VmFlags::NORESERVE;
    if new.contains(VmFlags::WRITE) && !old.intersects(exempt) {
        return new | VmFlags::ACCOUNT;
    }
    if !new.contains(VmFlags::WRITE) && unwritten {
        return new - VmFlags::ACCOUNT;
    }
    new
}
