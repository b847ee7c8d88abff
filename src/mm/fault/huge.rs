//! Faults on huge pages, 2 MiB mapped as one (`mm/huge_memory.c`).
//!
//! A leaf table stands in the place of the one entry: all its entries are set, and the leaf is
//! marked (ADR 0006). So translation, counts and rights are the same for both sizes, and clearing
//! the mark splits the mapping. This file does the things that Linux does differently with the one
//! entry, its windows above all.

use super::scope::{FaultScope, WindowWork};
use crate::mm::{
    entry::{flags::VmFlags, pte::RawPte},
    vma::Vma,
    window::Lease,
};
use crate::{
    addr::{Pfn, Vpn, VpnRange},
    ctx::{Below, Rank, Sleepable, rank},
    error::{FaultError, NoMemory},
    frame::{FrameFlags, HUGE, LargeFrame, PhysMem},
    notifier::{Access, Event},
};

impl Vma {
    /// Returns true if a fault at `at` may map a huge page: the VMA asks for them, is private and
    /// anonymous, and holds all of the block (`thp_vma_allowable_order`, with huge pages on
    /// request).
    fn wants_huge(&self, at: Vpn) -> bool {
        self.is_anonymous()
            && self.flags.contains(VmFlags::HUGEPAGE)
            && self.range().covers(VpnRange::block_of(at))
    }
}

impl<'l, R: Rank + Below<rank::Window>> Lease<'l, R, Sleepable> {
    /// Splits the mapping of a huge page at `at`, if there is one, in a window over it
    /// (`split_huge_pmd`).
    pub(in crate::mm) fn split_pmd(&mut self, at: Vpn) {
        if self.mm.is_huge(&mut self.cx, at) {
            self.split_pmd_always(at);
        }
    }
    /// Opens the window in any case, also where no huge page is mapped (`split_huge_pmd_address`).
    pub(in crate::mm) fn split_pmd_always(&mut self, at: Vpn) {
        let mut window = self.window(VpnRange::block_of(at), Event::Clear);
        window.split_huge(at);
        window.close();
    }
}

impl<'h> FaultScope<'h> {
    /// Maps a huge page where the fault saw no table, if the VMA wants one
    /// (`do_huge_pmd_anonymous_page`). Returns false if a small page must be mapped instead.
    pub(in crate::mm) fn fault_huge(
        &mut self,
        vma: &Vma,
        at: Vpn,
        access: Access,
    ) -> Result<bool, FaultError> {
        let allowed = self.layout.allows_huge(vma.flags, false);
        if !allowed || !vma.wants_huge(at) {
            return Ok(false);
        }
        self.layout.anon_of(vma)?;
        if let Some(handed) = self.hand_over_missing(vma, at, access) {
            return handed.map(|()| true);
        }
        let mem = self.lease.mm.machine().mem();
        if access == Access::Read {
            let rights = vma.read_only();
            let zero = mem.huge_zero_pfn();
            self.set_huge(at, |i| RawPte::zero(zero.nth(i), rights))?;
            return Ok(true);
        }
        let Some(huge) = self.new_huge(vma, at)? else {
            return Ok(false);
        };
        let (head, rights) = (huge.head(), vma.rights());
        let mapped = self.set_huge(at, |i| {
            mem.map_inc(head.nth(i));
            RawPte::frame(head.nth(i), rights).mkdirty()
        })?;
        if mapped {
            // Unless another thread was first, the entries have the references now.
            mem.lru_add(huge.into_raw());
        }
        Ok(true)
    }
    /// Allocates a huge page for private memory; `None`: none is free, small pages will do.
    fn new_huge(&mut self, vma: &Vma, at: Vpn) -> Result<Option<LargeFrame<'h>>, NoMemory> {
        let mem = self.lease.mm.machine().mem();
        self.layout.anon_of(vma)?;
        let Ok(frame) = mem.alloc_huge() else {
            return Ok(None);
        };
        self.own_large(vma, VpnRange::block_of(at).start(), frame.page())?;
        Ok(Some(frame))
    }
    /// Fills a new leaf and marks it. Returns false if the leaf has entries already.
    fn set_huge(&mut self, at: Vpn, pte: impl Fn(u32) -> RawPte) -> Result<bool, NoMemory> {
        self.with_leaf(at, |leaf| {
            if !leaf.is_empty() {
                return false;
            }
            let first = VpnRange::block_of(at).start();
            // A walk without the lock that sees an entry sees the mark.
            leaf.set_huge(true);
            (0..HUGE).for_each(|i| leaf.set(first.plus(u64::from(i)), pte(i)));
            true
        })
    }
    /// Handles a write to a read-only huge page (`do_huge_pmd_wp_page`): makes it writable, or
    /// splits the mapping, so that the access faults again on the one page.
    pub(in crate::mm) fn fault_huge_protected(
        &mut self,
        vma: &Vma,
        at: Vpn,
    ) -> Result<(), FaultError> {
        let mem = self.lease.mm.machine().mem();
        let rights = vma.rights();
        let zero = self.with_leaf(at, |leaf| leaf.is_huge() && leaf.get(at).is_zero_page())?;
        if zero {
            return Ok(self.replace_huge_zero(vma, at)?);
        }
        let reused = self.with_leaf(at, |leaf| {
            let Some(pfn) = leaf.get(at).counted() else {
                return !leaf.is_huge();
            };
            let reuse = leaf.is_huge() && own_huge(mem, pfn.head());
            for i in (0..HUGE).filter(|_| reuse) {
                let at = VpnRange::block_of(at).start().plus(u64::from(i));
                mem.set_flags(pfn.head().nth(i), FrameFlags::ANON_EXCLUSIVE);
                leaf.set(at, leaf.get(at).with_rights(rights).mkdirty());
            }
            reuse
        })?;
        if !reused {
            self.split(at);
        }
        Ok(())
    }
    /// Makes the huge page this process's own for a reader that keeps it, or splits its mapping;
    /// see [`unshare`](Self::unshare). A new huge page takes the place of the huge zero page.
    pub(in crate::mm) fn unshare_huge(&mut self, vma: &Vma, at: Vpn) -> Result<(), FaultError> {
        let mem = self.lease.mm.machine().mem();
        if self.with_leaf(at, |leaf| leaf.is_huge() && leaf.get(at).is_zero_page())? {
            return Ok(self.replace_huge_zero(vma, at)?);
        }
        let own = self.with_leaf(at, |leaf| {
            let Some(pfn) = leaf.get(at).counted().filter(|_| leaf.is_huge()) else {
                return true; // Another page is mapped by now.
            };
            let own = own_huge(mem, pfn.head());
            for i in (0..HUGE).filter(|_| own) {
                mem.set_flags(pfn.head().nth(i), FrameFlags::ANON_EXCLUSIVE);
            }
            own
        })?;
        if !own {
            self.split(at);
        }
        Ok(())
    }
    /// Replaces the huge zero page by a new huge page, in one window over all of it
    /// (`do_huge_zero_wp_pmd`); without one, splits its mapping.
    fn replace_huge_zero(&mut self, vma: &Vma, at: Vpn) -> Result<(), NoMemory> {
        match self.new_huge(vma, at)? {
            Some(huge) => {
                let (head, rights) = (huge.into_raw(), vma.rights());
                self.in_window(WindowWork::HugeZero { at, head, rights });
            }
            None => self.split(at),
        }
        Ok(())
    }
    /// Splits the mapping of the huge page at `at`, now or in a window that is deferred. The fault
    /// is over then: other operations may change the entries before they are looked at.
    pub(super) fn split(&mut self, at: Vpn) {
        self.in_window(WindowWork::Split(at));
    }
}

/// Returns true if no other entry maps a part of the huge page, and nothing else holds one.
fn own_huge(mem: &PhysMem, head: Pfn) -> bool {
    mem.flags(head).contains(FrameFlags::ANON_EXCLUSIVE)
        || (0..HUGE).all(|i| mem.refcount(head.nth(i)) == 1)
}
