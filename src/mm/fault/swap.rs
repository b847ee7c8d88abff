//! A fault on a page in swap (`do_swap_page`).
//!
//! The page comes back through the swap cache, so all entries of its slot get the same frame again.
//! The only remaining user of a page gets it writable.

use super::scope::FaultScope;
use crate::mm::{
    entry::{flags::VmFlags, pte::RawPte},
    vma::Vma,
};
use crate::{
    addr::Vpn,
    error::{FaultError, NoMemory},
    frame::{FrameFlags, FrameLock, SwapSlot},
    notifier::Access,
};

/// The reason why a page comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// An access faulted.
    Fault(Access),
    /// The swap device is taken out of use: no access is known, so the entry is old and read-only
    /// (`unuse_pte`).
    SwapOff,
}

impl FaultScope<'_> {
    pub(in crate::mm) fn fault_swapped(
        &mut self,
        vma: &Vma,
        at: Vpn,
        access: Access,
        seen: RawPte,
        slot: SwapSlot,
    ) -> Result<(), FaultError> {
        // A write to a page that other processes have as well: copy it, or find that it has become
        // exclusive.
        match self.swap_in(vma, at, Why::Fault(access), (seen, slot))? {
            Some(pte) if access == Access::Write && !pte.may_write() => {
                let huge = self.lease.mm.is_huge(&mut self.lease.cx, at);
                self.fault_protected(vma, at, (pte, huge))
            }
            _ => Ok(()),
        }
    }
    /// Makes the page at `at` present if it is in swap (`unuse_pte_range`).
    pub(in crate::mm) fn bring_back(&mut self, at: Vpn) -> Result<(), NoMemory> {
        let Some(vma) = self.layout.vmas.get(at) else {
            return Ok(());
        };
        let seen = self.look(at)?;
        if let Some(slot) = seen.swap_slot() {
            self.swap_in(vma, at, Why::SwapOff, (seen, slot))?;
        }
        Ok(())
    }
    /// Reads the page of a swap entry and maps it. Returns the new entry, if the swap entry was
    /// still there.
    fn swap_in(
        &mut self,
        vma: &Vma,
        at: Vpn,
        why: Why,
        (seen, slot): (RawPte, SwapSlot),
    ) -> Result<Option<RawPte>, NoMemory> {
        let mem = self.lease.mm.machine().mem();
        let fresh = mem.alloc().map_err(|_| NoMemory::Frame)?;
        mem.set_flags(fresh.pfn(), FrameFlags::SWAP_BACKED);
        let Some(frame) = mem.swap_read(slot, fresh) else {
            return Ok(None); // Freed with its entry: the access looks anew.
        };
        let locked = mem.lock(&mut self.lease.cx, frame);
        if mem.swap_slot(locked.pfn()) != Some(slot) {
            return Ok(None); // Reclaimed again, or freed with its entry: the access looks anew.
        }
        self.swapped_in(vma, at, why, seen, &locked)
    }
    /// Maps the locked frame in the place of its swap entry. Returns the new entry, if the swap
    /// entry was still there.
    fn swapped_in(
        &mut self,
        vma: &Vma,
        at: Vpn,
        why: Why,
        seen: RawPte,
        locked: &FrameLock<'_>,
    ) -> Result<Option<RawPte>, NoMemory> {
        let mem = self.lease.mm.machine().mem();
        let node = self.layout.anon_of(vma)?;
        let index = vma.pgoff_at(at);
        let pfn = locked.pfn();
        let access = match why {
            Why::Fault(access) => access,
            Why::SwapOff => Access::Read,
        };
        let keep = !self.frees_swap(vma, access, locked);
        self.with_leaf(at, |leaf| {
            if leaf.get(at) != seen {
                return None;
            }
            mem.map_inc(locked.frame().clone().into_raw());
            let slot = seen.swap_slot().expect("the caller saw a swap entry");
            mem.swap_free(slot);
            let _freed = !keep && mem.swap_cache_drop(locked);
            // The references of this lock and of the mapping alone, not even the cache's.
            let alone = mem.refcount(pfn) == 2;
            let exclusive = seen.is_swap_exclusive() || alone;
            if !mem.flags(pfn).contains(FrameFlags::ANON) {
                // Every other user of a shared page has its node below the oldest.
                let owner = match exclusive {
                    true => node.owner(index),
                    false => node.root().owner(index),
                };
                mem.set_owner(pfn, Some(owner));
                mem.set_flags(pfn, FrameFlags::ANON);
            }
            let mut pte = RawPte::frame(pfn, vma.read_only()).in_place_of(seen);
            if exclusive {
                mem.set_flags(pfn, FrameFlags::ANON_EXCLUSIVE);
            }
            if exclusive && !(pte.is_uffd_wp() && vma.is_uffd_wp()) {
                pte = pte.with_rights(vma.rights());
                if access == Access::Write && pte.may_write() {
                    pte = pte.mkdirty();
                }
            }
            if why == Why::SwapOff {
                pte = pte.mkold().wrprotect();
            }
            leaf.set(at, pte);
            if vma.flags.contains(VmFlags::LOCKED) {
                mem.lru_lock(pfn);
            }
            Some(pte)
        })
    }
    /// Returns true if the page should leave the swap cache now (`should_try_to_free_swap`).
    fn frees_swap(&self, vma: &Vma, access: Access, locked: &FrameLock<'_>) -> bool {
        let mem = self.lease.mm.machine().mem();
        let locked_vma = vma.flags.contains(VmFlags::LOCKED);
        mem.swap().is_scarce()
            || locked_vma
            // The references of this lock and of the cache.
            || (access == Access::Write && mem.refcount(locked.pfn()) == 2)
    }
}
