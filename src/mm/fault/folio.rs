//! Mapping the pages of an object together that came in together (`finish_fault`,
//! `filemap_map_folio_range`).

use super::{entries::with_leaf, huge_object::Came, scope::FaultScope};
use crate::mm::{
    entry::{flags::VmFlags, pte::RawPte},
    vma::Vma,
};
use crate::{
    addr::{Pfn, Vpn, VpnRange},
    error::{FaultError, NoMemory},
    file::{MemoryObject, sealed},
    frame::FrameLock,
    notifier::Access,
};

impl Vma {
    /// Returns the pages of the folio of `at`, if all of them lie in the VMA and in its leaf.
    pub(in crate::mm) fn folio_at(&self, object: &dyn MemoryObject, at: Vpn) -> Option<VpnRange> {
        let index = self.pgoff_at(at);
        let pages = object.together(index, sealed::Ours);
        if pages.start < self.pgoff || pages.end > self.pgoff_end() || pages.end - pages.start < 2 {
            return None;
        }
        let lies = |index: u64| self.start().plus(index - self.pgoff);
        let there = VpnRange::new(lies(pages.start), lies(pages.end))?;
        VpnRange::block_of(at).covers(there).then_some(there)
    }
    /// Returns true if the page at `at`, beyond the end of the object, is in a folio that begins
    /// before the end.
    pub(in crate::mm) fn is_across_end(&self, object: &dyn MemoryObject, at: Vpn) -> bool {
        self.folio_at(object, at)
            .is_some_and(|there| self.pgoff_at(there.start()) < object.pages())
    }
    /// Extends `around` by the folios of its first page and of the last page that the object has.
    pub(in crate::mm) fn with_folios(
        &self,
        object: &dyn MemoryObject,
        around: VpnRange,
    ) -> VpnRange {
        let last = object.pages().min(self.pgoff_end()).saturating_sub(1);
        let last = last.saturating_sub(self.pgoff);
        let last = self.start().plus(last).min(Vpn(around.end().0 - 1));
        if last < around.start() {
            return around;
        }
        let [low, high] = [around.start(), last].map(|at| self.folio_at(object, at));
        let start = low.map_or(around.start(), |low| low.start().min(around.start()));
        let end = high.map_or(around.end(), |high| high.end().max(around.end()));
        VpnRange::new(start, end).expect("around is not empty")
    }
}

impl<'h> FaultScope<'h> {
    /// Notes that the fault has made `new` mappings of the huge page or folio of frame `pfn`.
    pub(super) fn note_mapped(&mut self, pfn: Pfn, new: u64) {
        if new > 0 {
            let mm = self.lease.mm;
            mm.note_mapped(&mut self.lease.cx.descend(), pfn, new);
        }
    }
    /// Maps the page at `at` with all pages of its folio, and returns `None`. Returns the locked
    /// page if they cannot be mapped together: the caller maps it alone.
    pub(in crate::mm) fn lock_or_map<'f>(
        &mut self,
        vma: &Vma,
        object: &'f dyn MemoryObject,
        at: Vpn,
        access: Access,
    ) -> Result<Option<FrameLock<'f>>, FaultError>
    where
        'h: 'f,
    {
        let mem = self.lease.mm.machine().mem();
        let locked = self.lock_page(vma, object, at, access)?;
        if !mem.is_large(locked.pfn()) {
            let mapped = self.install_folio(vma, object, (at, &locked), access)?;
            return Ok((!mapped).then_some(locked));
        }
        // The lock of the first frame guards the huge page: no other may be held while waiting for
        // it.
        drop(locked);
        if self.fault_huge_object(vma, object, at, (access, Came::New))? {
            return Ok(None);
        }
        self.lock_page(vma, object, at, access).map(Some)
    }
    /// Maps the locked page at `at` and the other pages of its folio, if none of them is mapped.
    /// Returns true if it did.
    fn install_folio(
        &mut self,
        vma: &Vma,
        object: &dyn MemoryObject,
        (at, locked): (Vpn, &FrameLock<'_>),
        access: Access,
    ) -> Result<bool, NoMemory> {
        let folio = vma.folio_at(object, at);
        // Each page must be able to fault alone (`userfaultfd_armed` in `finish_fault`).
        let Some(folio) = folio.filter(|_| vma.userfault().is_none()) else {
            return Ok(false);
        };
        let mem = self.lease.mm.machine().mem();
        let mut frames = Vec::new();
        for page in folio.iter().filter(|page| *page != at) {
            let index = vma.pgoff_at(page);
            let frame = object.resident(index).filter(|frame| frame.is_of(mem));
            let held = frame.and_then(|frame| mem.try_lock(frame).ok());
            match held.filter(|held| object.is_page(held, index, sealed::Ours)) {
                Some(held) => frames.push((page, held)),
                None => return Ok(false), // The folio was split, or the page is in use.
            }
        }
        let first = match access {
            Access::Write => RawPte::frame(locked.pfn(), vma.rights()).mkdirty(),
            Access::Read => RawPte::frame(locked.pfn(), vma.mapped_rights()),
        };
        let is_locked = vma.flags.contains(VmFlags::LOCKED);
        let mapped = with_leaf(self.lease.mm, &mut self.lease.cx, at, |leaf| {
            let free = folio.iter().all(|page| leaf.get(page).is_none());
            let others = frames.iter().map(|(page, held)| (*page, held.pfn()));
            let all = others.chain([(at, locked.pfn())]).filter(|_| free);
            for (page, pfn) in all {
                mem.share(pfn);
                leaf.set(page, first.with_pfn(pfn));
                if is_locked {
                    mem.lru_lock(pfn);
                }
            }
            free
        })?;
        if mapped {
            self.note_mapped(locked.pfn(), folio.pages());
        }
        Ok(mapped)
    }
}
