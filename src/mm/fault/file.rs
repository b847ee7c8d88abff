//! Faults on a page of an object: read, private write, shared write (`do_fault`).
//!
//! Guarantee: a page that is truncated or punched out meanwhile does not stay mapped. A fault puts
//! a page into the table under the page's lock, after a check that the object still has the page; a
//! truncation holds that lock when it takes the page from the object, and drops the mappings that
//! were made before (ADR 0007).

use super::{entries::with_leaf, huge_object::Came, scope::FaultScope};
use crate::mm::{
    entry::{flags::VmFlags, pte::RawPte},
    vma::Vma,
};
use crate::{
    addr::{Pfn, Vpn, VpnRange},
    error::{FaultError, NoMemory, ObjectError},
    file::{MemoryObject, PageRequest, Pattern, sealed},
    frame::{Frame, FrameFlags, FrameLock, PhysMem},
    notifier::Access,
};

impl Vma {
    /// Returns the description of the fault that the object gets.
    fn want(&self, access: Access, huge: bool) -> PageRequest {
        let pattern = if self.flags.contains(VmFlags::EXEC) {
            Pattern::Code
        } else if self.flags.contains(VmFlags::RAND_READ) {
            Pattern::Random
        } else if self.flags.contains(VmFlags::SEQ_READ) {
            Pattern::Sequential
        } else {
            Pattern::Normal
        };
        PageRequest {
            access,
            mapped: self.pgoff..self.pgoff_end(),
            pattern,
            skew: self.start().0.wrapping_sub(self.pgoff),
            advised: self.flags.contains(VmFlags::HUGEPAGE),
            huge,
        }
    }
}

impl<'h> FaultScope<'h> {
    /// Maps the page of the object, or a private copy of it. The object is asked last, as on Linux:
    /// a fault that ends in SIGBUS leaves the tables and frames behind that came before.
    pub(in crate::mm) fn fault_file(
        &mut self,
        vma: &Vma,
        object: &dyn MemoryObject,
        at: Vpn,
        access: Access,
    ) -> Result<(), FaultError> {
        let shared = vma.flags.contains(VmFlags::SHARED);
        let maps_object = access == Access::Read || shared;
        if maps_object && self.fault_huge_object(vma, object, at, (access, Came::Before))? {
            return Ok(());
        }
        match access {
            Access::Read => self.read_fault(vma, object, at),
            Access::Write if shared => self.shared_fault(vma, object, at),
            Access::Write => self.cow_fault(vma, object, at),
        }
    }
    /// Maps the object's page for a read, with its neighbours in memory if there are some
    /// (`do_read_fault`).
    fn read_fault(
        &mut self,
        vma: &Vma,
        object: &dyn MemoryObject,
        at: Vpn,
    ) -> Result<(), FaultError> {
        // Every page must fault (`uffd_disable_fault_around`). A segment knows no other way
        // (`shm_vm_ops`).
        let alone = VmFlags::UFFD_WP | VmFlags::UFFD_MINOR;
        let alone = vma.flags.intersects(alone) || object.counts_mappings();
        if !alone && self.fault_around(vma, object, at)? {
            return Ok(());
        }
        if let Some(handed) = self.hand_over_object(vma, object, (at, Access::Read)) {
            return handed;
        }
        let Some(locked) = self.lock_or_map(vma, object, at, Access::Read)? else {
            return Ok(());
        };
        let pte = RawPte::frame(locked.pfn(), vma.mapped_rights());
        self.install_page(vma, at, &locked, pte)?;
        Ok(())
    }
    /// Maps the object's page for a write through a shared mapping (`do_shared_fault`).
    fn shared_fault(
        &mut self,
        vma: &Vma,
        object: &dyn MemoryObject,
        at: Vpn,
    ) -> Result<(), FaultError> {
        if let Some(handed) = self.hand_over_object(vma, object, (at, Access::Write)) {
            return handed;
        }
        let Some(locked) = self.lock_or_map(vma, object, at, Access::Write)? else {
            return Ok(());
        };
        let pte = RawPte::frame(locked.pfn(), vma.rights()).mkdirty();
        self.install_page(vma, at, &locked, pte)?;
        Ok(())
    }
    /// Maps a private copy of the object's page (`do_cow_fault`). Memory for it is allocated before
    /// the object is asked.
    fn cow_fault(
        &mut self,
        vma: &Vma,
        object: &dyn MemoryObject,
        at: Vpn,
    ) -> Result<(), FaultError> {
        let mem = self.lease.mm.machine().mem();
        let copy = self.new_anon(vma, at)?;
        if let Some(handed) = self.hand_over_object(vma, object, (at, Access::Write)) {
            return handed;
        }
        let locked = self.lock_page(vma, object, at, Access::Read)?;
        mem.copy(locked.pfn(), copy.pfn());
        let pte = RawPte::frame(copy.pfn(), vma.rights()).mkdirty();
        self.install(at, copy, pte)?;
        Ok(())
    }
    /// Maps the object's page itself; a page of locked memory leaves the lists of reclaim.
    fn install_page(
        &mut self,
        vma: &Vma,
        at: Vpn,
        locked: &FrameLock<'_>,
        pte: RawPte,
    ) -> Result<(), NoMemory> {
        self.install(at, locked.frame().clone(), pte)?;
        let is_part = |object: &dyn MemoryObject| {
            let together = object.together(vma.pgoff_at(at), sealed::Ours);
            together.end - together.start > 1
        };
        if vma.object().is_some_and(|object| is_part(&**object)) {
            self.note_mapped(locked.pfn(), 1);
        }
        if vma.flags.contains(VmFlags::LOCKED) {
            self.lease.mm.machine().mem().lru_lock(locked.pfn());
        }
        Ok(())
    }
    /// Returns the object's page at `at`, locked. Fails with [`ObjectError::NotItsPage`] if the
    /// page was cut off before it could be locked, or is not the object's: the access faults again.
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
    /// Returns page `index` of the object, locked, for the fault at `at`; otherwise like
    /// [`lock_page`](Self::lock_page).
    ///
    /// A page that is about to be written is marked dirty under its lock, if its object wants to
    /// know: a write-back that had the lock before has made it clean (`fault_dirty_shared_page`).
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
        let want = vma.want(access, self.layout.allows_huge(vma.flags, false));
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
        if !object.is_page(&locked, index, sealed::Ours) {
            return Err(FaultError::Object { addr, why });
        }
        if access == Access::Write && object.notes_writes() {
            mem.set_flags(locked.pfn(), FrameFlags::DIRTY);
        }
        Ok(locked)
    }

    /// Maps the pages that the object has in memory in the aligned block around `at`, within the
    /// VMA and the leaf (`do_fault_around`). Returns true if `at` is mapped then.
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
        // The block begins with the VMA if that begins inside of it, and keeps its length.
        let to = from
            .plus(block)
            .min(VpnRange::block_of(at).end())
            .min(vma.end());
        if vma.pgoff_at(from) >= object.pages() {
            return Ok(false); // The walk begins behind the end (`filemap_map_pages`).
        }
        let around = VpnRange::new(from, to).expect("at lies inside");
        let around = vma.with_folios(object, around);
        let frames = resident(mem, vma, object, around);
        object.mapped_around(sealed::Ours);
        let Some((first, _)) = frames.first() else {
            return Ok(false);
        };
        // Linux 6.18 makes the table here only for a possible huge entry: of a file, not if the
        // first page found is the file's last (`can_map_large`). The fault itself makes it.
        let is_last = vma.pgoff_at(*first) + 1 == object.pages() && !object.is_memory();
        if is_last && !self.has_leaf(at) {
            return Ok(false);
        }
        let rights = vma.mapped_rights();
        // The part of one folio around `at` that is mapped anew, and of each huge page.
        let folio = vma.folio_at(object, at);
        let mut parts: Vec<(Pfn, u64)> = Vec::new();
        let mapped = with_leaf(mm, &mut self.lease.cx, at, |leaf| {
            for (page, locked) in frames {
                if leaf.get(page).is_none() {
                    note_part(mem, &mut parts, (page, locked.pfn()), folio);
                    let pte = RawPte::frame(locked.pfn(), rights);
                    mem.map_inc(locked.frame().clone().into_raw());
                    leaf.set(page, pte);
                    if vma.flags.contains(VmFlags::LOCKED) {
                        mem.lru_lock(locked.pfn());
                    }
                }
            }
            !leaf.get(at).is_none()
        })?;
        for (pfn, new) in parts {
            self.note_mapped(pfn, new);
        }
        Ok(mapped)
    }
}

/// Returns the pages that a fault around another maps along with it, those that the object has in
/// memory and no other thread has locked (`next_uptodate_folio`).
fn resident<'f>(
    mem: &'f PhysMem,
    vma: &Vma,
    object: &'f dyn MemoryObject,
    around: VpnRange,
) -> Vec<(Vpn, FrameLock<'f>)> {
    let find = |page: Vpn| {
        let index = vma.pgoff_at(page);
        let exists = index < object.pages() || vma.is_across_end(object, page);
        let frame: Frame<'_> = exists.then(|| object.resident(index))??;
        // A page that reclaim has written back, and will drop next, is not mapped along with
        // others, nor is one that read-ahead has marked.
        if !frame.is_of(mem) || mem.flags(frame.pfn()).contains(FrameFlags::RECLAIM) {
            return None;
        }
        let locked = mem.try_lock(frame).ok()?;
        let is_page = object.is_page(&locked, index, sealed::Ours);
        is_page.then_some((page, locked))
    };
    around.iter().filter_map(find).collect()
}

/// Counts a page that is mapped anew, if it is part of the folio `around` or of a huge page.
fn note_part(
    mem: &PhysMem,
    parts: &mut Vec<(Pfn, u64)>,
    (page, pfn): (Vpn, Pfn),
    around: Option<VpnRange>,
) {
    let is_large = mem.is_large(pfn);
    if !is_large && !around.is_some_and(|folio| folio.contains(page)) {
        return;
    }
    let same = |&&mut (of, _): &&mut (Pfn, u64)| match is_large {
        true => mem.is_large(of) && of.head() == pfn.head(),
        false => !mem.is_large(of),
    };
    match parts.iter_mut().find(same) {
        Some((_, new)) => *new += 1,
        None => parts.push((pfn, 1)),
    }
}
