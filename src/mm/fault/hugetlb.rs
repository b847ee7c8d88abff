//! Faults in memory of huge pages from a pool (`mm/hugetlb.c`).
//!
//! Such a page is mapped as one and never split: its leaves are marked, as for other huge pages
//! (ADR 0006). A page of 1 GiB has 512 leaves. What differs is where pages come from: a private
//! page is made for its mapping, a shared one is the file's; both may have been promised when the
//! mapping was made.
//!
//! A fault first maps a private page read-only, and a write faults again (`hugetlb_no_page`,
//! `hugetlb_wp`). No window opens for the second step, since a new page has no other mapping.

use super::{
    entries::with_leaf,
    scope::{FaultScope, WindowWork},
};
use crate::mm::{
    entry::{
        flags::VmFlags,
        pte::{RawPte, Rights},
    },
    page_table::fill_part,
    vma::Vma,
};
use crate::{
    addr::{PMD_PAGES, Pfn, Vpn, VpnRange},
    error::{FaultError, NoMemory, ObjectError},
    file::HugetlbFile,
    frame::{Claim, FrameFlags, FrameLock, HUGE, PhysMem, PoolPage},
    notifier::Access,
};
use std::sync::Arc;

/// The first flags of a frame of private memory.
pub(in crate::mm) const NEW: FrameFlags = FrameFlags::ANON.union(FrameFlags::ANON_EXCLUSIVE);

/// The outcome of a look at a read-only entry that is to be written.
enum Write {
    /// The entry is writable now, or another one.
    Done,
    /// The page must be copied.
    Copy,
}

/// Returns the 2-MiB parts of a huge page, with the number of the first frame of each.
pub(in crate::mm) fn parts(page: VpnRange) -> impl Iterator<Item = (VpnRange, u32)> {
    let starts = (page.start().0..page.end().0).step_by(HUGE as usize);
    (0..)
        .step_by(HUGE as usize)
        .zip(starts)
        .map(|(nth, start)| (VpnRange::block_of(Vpn(start)), nth))
}

impl<'h> FaultScope<'h> {
    /// Takes one step of a fault (`hugetlb_fault`). An access that still does not go through faults
    /// again.
    pub(super) fn fault_hugetlb(
        &mut self,
        vma: &Vma,
        file: &HugetlbFile,
        at: Vpn,
        access: Access,
    ) -> Result<(), FaultError> {
        let page = vma.huge_page_of(at);
        self.share_table(vma, file, at)?;
        let seen = self.look(page.start())?;
        // A page of 1 GiB moves, and becomes writable, leaf by leaf.
        let here = self.look(at)?;
        if let Some(moving) = [seen, here]
            .into_iter()
            .find(|pte| pte.migrating().is_some())
        {
            self.wait_for_migration(moving);
            return Ok(());
        }
        if seen.is_poison() {
            return Err(FaultError::Poisoned(at.addr()));
        }
        if seen.is_vacant() {
            return self.hugetlb_no_page(vma, file, (page, access));
        }
        if access == Access::Write && !here.may_write() {
            if seen.is_uffd_wp() && vma.is_uffd_wp() {
                return self.write_to_protected_hugetlb(vma, page);
            }
            return self.hugetlb_protected(vma, file, (page, seen), vma.rights());
        }
        Ok(())
    }
    /// Makes the page behind a read-only entry this process's own, for a reader that keeps it
    /// (`FAULT_FLAG_UNSHARE`).
    pub(in crate::mm) fn unshare_hugetlb(
        &mut self,
        vma: &Vma,
        at: Vpn,
        seen: RawPte,
    ) -> Result<(), FaultError> {
        let file = vma.hugetlb().expect("the caller saw a huge page of a pool");
        let page = vma.huge_page_of(at);
        let first = self.look(page.start())?;
        if vma.flags.contains(VmFlags::MAYSHARE) || !seen.is_present() || !first.is_present() {
            return Ok(());
        }
        self.hugetlb_protected(vma, file, (page, first), vma.read_only())
    }

    /// Maps the file's page, or a new private one (`hugetlb_no_page`).
    fn hugetlb_no_page(
        &mut self,
        vma: &Vma,
        file: &HugetlbFile,
        (page, access): (VpnRange, Access),
    ) -> Result<(), FaultError> {
        let at = page.start();
        let failed = |why| object_error(at, why);
        if vma.is_stolen() {
            return Err(failed(ObjectError::NoHugePage));
        }
        for (part, _) in parts(page) {
            self.with_leaf(part.start(), |_| ())?;
        }
        let index = vma.huge_index(at);
        let _serial = file.serialize();
        let seen = self.look(at)?;
        if !seen.is_vacant() {
            return Ok(()); // Another thread was first.
        }
        let shared = vma.flags.contains(VmFlags::MAYSHARE);
        let has_page = file.with_page(index, |head| head.is_some());
        if !has_page {
            file.check_inside(index).map_err(failed)?;
        }
        if let Some(handed) = self.hand_over_unmapped(vma, (at, access), has_page) {
            return handed;
        }
        if shared {
            file.make(index).map_err(failed)?;
        }
        let rights = vma.mapped_rights();
        let found = file.with_page(index, |head| {
            let head = head?;
            let first = RawPte::frame(head, rights).in_place_of(seen);
            let mapped = self.map_hugetlb(page, first, PhysMem::share);
            if mapped.is_ok() {
                self.spread(vma, page, first);
            }
            Some(mapped)
        });
        match found {
            Some(mapped) => return Ok(mapped?),
            None if shared => return Ok(()), // The file was cut.
            None => {}
        }
        self.layout.anon_of(vma)?;
        let new = file.take(claim(vma, index)).map_err(failed)?;
        self.own_hugetlb(vma, at, &new)?;
        let first = RawPte::frame(new.head(), vma.read_only()).in_place_of(seen);
        // A cut waits for this before it unmaps, so nothing is mapped behind it.
        file.with_page(index, |_| {
            file.check_inside(index).map_err(failed)?;
            let map = || self.map_hugetlb(page, first, PhysMem::map_inc);
            Ok(new.keep_mapped(map)?)
        })
    }
    /// Makes the frames of a new private page those of its place in the VMA.
    pub(in crate::mm) fn own_hugetlb(
        &self,
        vma: &Vma,
        at: Vpn,
        new: &PoolPage,
    ) -> Result<(), NoMemory> {
        let node = self.layout.anon_of(vma)?;
        new.own(NEW, node.owner(vma.pgoff_at(at)));
        Ok(())
    }
    /// Fills the leaves of a page, which are empty; the first entry gives the rights of all.
    pub(in crate::mm) fn map_hugetlb(
        &mut self,
        page: VpnRange,
        first: RawPte,
        map: impl Fn(&PhysMem, Pfn) + Copy,
    ) -> Result<(), NoMemory> {
        let mem = self.lease.mm.machine().mem();
        for (part, nth) in parts(page) {
            let first = first.with_pfn(first.pfn().nth(nth));
            with_leaf(self.lease.mm, &mut self.lease.cx, part.start(), |leaf| {
                fill_part(mem, leaf, part, first, map);
            })?;
        }
        Ok(())
    }

    /// Handles a write to a read-only page (`hugetlb_wp`): a page of a shared mapping, and a
    /// private one that nothing else maps, is written in place. Else a copy takes its place; if the
    /// pool has no page for it, the process with the reservation takes the page of the others.
    fn hugetlb_protected(
        &mut self,
        vma: &Vma,
        file: &HugetlbFile,
        (page, seen): (VpnRange, RawPte),
        rights: Rights,
    ) -> Result<(), FaultError> {
        // The lock of faults is free again before a window opens, and so is that of the page.
        let work = {
            let locked = self.lock_hugetlb((page, seen))?;
            if locked.is_none() {
                return Ok(()); // Another entry by now.
            }
            self.hugetlb_work(vma, file, (page, seen), rights)?
        };
        if let Some(work) = work {
            self.in_window(work);
        }
        Ok(())
    }
    /// Locks the page: while it moves, some of its mappings are not counted. Returns `None` if the
    /// entry is another one by now.
    fn lock_hugetlb(
        &mut self,
        (page, seen): (VpnRange, RawPte),
    ) -> Result<Option<FrameLock<'h>>, NoMemory> {
        let mem = self.lease.mm.machine().mem();
        let there = self.with_leaf(page.start(), |leaf| {
            let pfn = seen.counted().filter(|_| leaf.get(page.start()) == seen)?;
            Some(mem.get(pfn))
        })?;
        Ok(there.map(|frame| mem.lock(&mut self.lease.cx, frame)))
    }
    /// Returns what is left to do in a window.
    fn hugetlb_work(
        &mut self,
        vma: &Vma,
        file: &HugetlbFile,
        (page, seen): (VpnRange, RawPte),
        rights: Rights,
    ) -> Result<Option<WindowWork>, FaultError> {
        let at = page.start();
        let index = vma.huge_index(at);
        let _serial = file.serialize();
        if let Write::Done = self.write_in_place(vma, (page, seen), rights)? {
            return Ok(None);
        }
        let head = seen.counted().expect("the entry of a page");
        let mem = self.lease.mm.machine().mem();
        // A page that leaves the file is not a private one.
        let is_private = mem.flags(head).contains(FrameFlags::ANON);
        let claim = match &vma.reserve {
            Some(reserve) if is_private => reserve.claim_copy(index),
            _ => claim(vma, index),
        };
        let owns = matches!(claim, Claim::Copy(..));
        let new = match file.take(claim) {
            Ok(new) => new,
            Err(ObjectError::NoHugePage) if owns => {
                let mapping = Arc::clone(vma.file.as_ref().expect("it maps one").mapping());
                let pages = (vma.pgoff_at(at), vma.pgoff_at(at) + page.pages());
                return Ok(Some(WindowWork::Steal {
                    page,
                    mapping,
                    pages,
                    head,
                }));
            }
            Err(why) => return Err(object_error(at, why)),
        };
        self.own_hugetlb(vma, at, &new)?;
        let copied = self.copy_hugetlb((page, seen), new.head())?;
        Ok(copied.then_some(WindowWork::HugetlbCopy {
            page,
            seen,
            new,
            rights,
        }))
    }
    /// Makes the page writable if the entry is still the one seen, and no copy is needed.
    fn write_in_place(
        &mut self,
        vma: &Vma,
        (page, seen): (VpnRange, RawPte),
        rights: Rights,
    ) -> Result<Write, NoMemory> {
        let mem = self.lease.mm.machine().mem();
        let shared = vma.flags.contains(VmFlags::MAYSHARE);
        let decided = self.with_leaf(page.start(), |leaf| {
            if leaf.get(page.start()) != seen {
                return Some(Write::Done);
            }
            let pfn = seen.counted()?;
            let alone = mem.mapcount(pfn) == 1 && mem.flags(pfn).contains(FrameFlags::ANON);
            (!shared && !alone).then_some(Write::Copy)
        })?;
        if let Some(decided) = decided {
            return Ok(decided);
        }
        for (part, _) in parts(page) {
            self.with_leaf(part.start(), |leaf| {
                for at in part.iter() {
                    let pte = leaf.get(at);
                    let Some(pfn) = pte.counted() else {
                        continue; // It moves: the access faults again.
                    };
                    if !shared {
                        mem.set_flags(pfn, FrameFlags::ANON_EXCLUSIVE);
                    }
                    let pte = pte.with_rights(rights);
                    leaf.set(at, if rights.write { pte.mkdirty() } else { pte });
                }
            })?;
        }
        Ok(Write::Done)
    }
    /// Copies the bytes of a page, under the locks of its leaves, which keep it mapped. Returns
    /// false if it is mapped no longer.
    fn copy_hugetlb(
        &mut self,
        (page, seen): (VpnRange, RawPte),
        to: Pfn,
    ) -> Result<bool, NoMemory> {
        let mem = self.lease.mm.machine().mem();
        let head = seen.pfn();
        let mut whole = true;
        for (part, nth) in parts(page) {
            whole &= self.with_leaf(part.start(), |leaf| {
                let there = leaf.get(part.start()).counted() == Some(head.nth(nth));
                for i in (0..HUGE).filter(|_| there) {
                    mem.copy(head.nth(nth + i), to.nth(nth + i));
                }
                there
            })?;
        }
        Ok(whole)
    }
}

/// Returns the claim of a private mapping on page `index`.
pub(in crate::mm) fn claim(vma: &Vma, index: u64) -> Claim {
    vma.reserve
        .as_ref()
        .map_or(Claim::None, |reserve| reserve.claim(index))
}

fn object_error(at: Vpn, why: ObjectError) -> FaultError {
    match why {
        ObjectError::Beyond(_) => FaultError::Beyond(at.addr()),
        why => FaultError::Object {
            addr: at.addr(),
            why,
        },
    }
}

const _: () = assert!(HUGE as u64 == PMD_PAGES);
