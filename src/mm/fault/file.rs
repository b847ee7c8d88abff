//! Faults on a page of an object: read, private write, shared write. `do_fault`.
//!
//! A page is put into the table under its lock, after a look whether it is still the object's: so a page that is cut
//! off meanwhile is never mapped behind the back of whoever cuts.

use super::with_leaf;
use crate::mm::{
    entry::{flags::VmFlags, pte::RawPte},
    guard::FaultScope,
    large::object::Came,
    vma::Vma,
};
use crate::{
    addr::{PMD_PAGES, Vpn, VpnRange},
    error::{FaultError, NoMemory, ObjectError},
    file::{MemoryObject, Pattern, Want, sealed},
    frame::{Frame, FrameFlags, FrameLock},
    notifier::Access,
};

impl Vma {
    /// What a fault tells the object.
    fn want(&self, access: Access) -> Want {
        let pattern = if self.flags.contains(VmFlags::EXEC) {
            Pattern::Code
        } else if self.flags.contains(VmFlags::RAND_READ) {
            Pattern::Random
        } else if self.flags.contains(VmFlags::SEQ_READ) {
            Pattern::Sequential
        } else {
            Pattern::Normal
        };
        Want {
            access,
            mapped: self.pgoff..self.pgoff_end(),
            pattern,
            skew: self.start().0.wrapping_sub(self.pgoff),
            advised: self.flags.contains(VmFlags::HUGEPAGE),
        }
    }
}

impl<'h> FaultScope<'h> {
    /// Whether the object has the page at all is asked last, as on Linux: a fault that ends in SIGBUS leaves behind
    /// what came before.
    pub(in crate::mm) fn fault_file(
        &mut self,
        vma: &Vma,
        object: &dyn MemoryObject,
        at: Vpn,
        access: Access,
    ) -> Result<(), FaultError> {
        let shared = vma.flags.contains(VmFlags::SHARED);
        let own = access == Access::Read || shared;
        if own && self.fault_huge_object(vma, object, at, (access, Came::Before))? {
            return Ok(());
        }
        match access {
            Access::Read => self.read_fault(vma, object, at),
            Access::Write if shared => self.shared_fault(vma, object, at),
            Access::Write => self.cow_fault(vma, object, at),
        }
    }
    /// `do_read_fault`.
    fn read_fault(
        &mut self,
        vma: &Vma,
        object: &dyn MemoryObject,
        at: Vpn,
    ) -> Result<(), FaultError> {
        if self.fault_around(vma, object, at)? {
            return Ok(());
        }
        let Some(locked) = self.lock_or_map(vma, object, at, Access::Read)? else {
            return Ok(());
        };
        let pte = RawPte::frame(locked.pfn(), vma.mapped_rights());
        self.install_page(vma, at, &locked, pte)?;
        Ok(())
    }
    /// `do_shared_fault`.
    fn shared_fault(
        &mut self,
        vma: &Vma,
        object: &dyn MemoryObject,
        at: Vpn,
    ) -> Result<(), FaultError> {
        let Some(locked) = self.lock_or_map(vma, object, at, Access::Write)? else {
            return Ok(());
        };
        let pte = RawPte::frame(locked.pfn(), vma.rights()).mkdirty();
        self.install_page(vma, at, &locked, pte)?;
        Ok(())
    }
    /// `do_cow_fault`: everything that can fail for want of memory comes before the object is asked.
    fn cow_fault(
        &mut self,
        vma: &Vma,
        object: &dyn MemoryObject,
        at: Vpn,
    ) -> Result<(), FaultError> {
        let mem = self.lease.mm.machine().mem();
        let copy = self.new_anon(vma, at)?;
        let locked = self.lock_page(vma, object, at, Access::Read)?;
        mem.copy(locked.pfn(), copy.pfn());
        let pte = RawPte::frame(copy.pfn(), vma.rights()).mkdirty();
        self.install(at, copy, pte)?;
        Ok(())
    }
    /// The object's page itself; locked memory takes it off the lists of reclaim.
    fn install_page(
        &mut self,
        vma: &Vma,
        at: Vpn,
        locked: &FrameLock<'_>,
        pte: RawPte,
    ) -> Result<(), NoMemory> {
        self.install(at, locked.frame().clone(), pte)?;
        if vma.flags.contains(VmFlags::LOCKED) {
            self.lease.mm.machine().mem().lru_lock(locked.pfn());
        }
        Ok(())
    }
    /// The page, locked; an error with [`ObjectError::NotItsPage`] if it was cut off before the lock was had, or never was
    /// that page: the access faults again.
    pub(in crate::mm) fn lock_page<'f>(
        &mut self,
        vma: &Vma,
        object: &'f dyn MemoryObject,
        at: Vpn,
        access: Access,
    ) -> Result<FrameLock<'f>, FaultError>
    where
        'h: 'f,
    {
        self.lock_index(vma, object, (at, vma.pgoff_at(at)), access)
    }
    /// The same of any page of the object.
    pub(in crate::mm) fn lock_index<'f>(
        &mut self,
        vma: &Vma,
        object: &'f dyn MemoryObject,
        (at, index): (Vpn, u64),
        access: Access,
    ) -> Result<FrameLock<'f>, FaultError>
    where
        'h: 'f,
    {
        let want = vma.want(access);
        let addr = at.addr();
        let frame = object
            .page(self.lease.cx.reborrow(), index, &want)
            .map_err(|why| match why {
                ObjectError::NoMemory(e) => e.into(),
                ObjectError::Beyond(_) => FaultError::Beyond(addr),
                why => FaultError::Object { addr, why },
            })?;
        let mem = self.lease.mm.machine().mem();
        let why = ObjectError::NotItsPage(index);
        if !frame.is_of(mem) {
            return Err(FaultError::Object { addr, why });
        }
        let locked = mem.lock(&mut self.lease.cx, frame);
        match object.is_page(&locked, index, sealed::Ours) {
            true => Ok(locked),
            false => Err(FaultError::Object { addr, why }),
        }
    }

    /// `do_fault_around`: maps what the object has in memory in the aligned block around `at`, within the VMA and the
    /// leaf. Returns whether `at` is mapped now.
    fn fault_around(
        &mut self,
        vma: &Vma,
        object: &dyn MemoryObject,
        at: Vpn,
    ) -> Result<bool, NoMemory> {
        let mm = self.lease.mm;
        let mem = mm.machine().mem();
        let block = mm.machine().config().fault_around_pages();
        let from = at.align_down(block).max(vma.start());
        // The block starts at the VMA's start if that lies inside, and keeps its length.
        let to = from
            .plus(block)
            .min(at.align_down(PMD_PAGES).plus(PMD_PAGES))
            .min(vma.end());
        let around = VpnRange::new(from, to).expect("at lies inside");
        let around = vma.with_folios(object, around);
        let resident = |page: Vpn| -> Option<FrameLock<'_>> {
            let index = vma.pgoff_at(page);
            let there = index < object.pages() || vma.is_across_end(object, page);
            let frame: Frame<'_> = there.then(|| object.resident(index))??;
            // What reclaim has written back, and would give up next, is not mapped along with others.
            if !frame.is_of(mem) || mem.flags(frame.pfn()).contains(FrameFlags::RECLAIM) {
                return None;
            }
            let locked = mem.try_lock(frame).ok()?;
            let is_page = object.is_page(&locked, index, sealed::Ours);
            is_page.then_some(locked)
        };
        let frames: Vec<(Vpn, FrameLock<'_>)> = around
            .iter()
            .filter_map(|p| Some((p, resident(p)?)))
            .collect();
        let Some((first, _)) = frames.first() else {
            return Ok(false);
        };
        // 6.18 makes the table only for what might become a huge entry: of a file, not if the first page found is the last
        // one (`can_map_large`). The fault itself makes it.
        let is_last = vma.pgoff_at(*first) + 1 == object.pages() && !object.is_memory();
        if is_last && !self.has_leaf(at) {
            return Ok(false);
        }
        let rights = vma.mapped_rights();
        with_leaf(mm, &mut self.lease.cx, at, |leaf| {
            for (page, locked) in frames {
                if leaf.get(page).is_none() {
                    let pte = RawPte::frame(locked.pfn(), rights);
                    mem.map_inc(locked.frame().clone().into_raw());
                    leaf.set(page, pte);
                    if vma.flags.contains(VmFlags::LOCKED) {
                        mem.lru_lock(locked.pfn());
                    }
                }
            }
            !leaf.get(at).is_none()
        })
    }
}
