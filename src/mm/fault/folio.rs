//! Pages of an object that came together are mapped together: `finish_fault`, `filemap_map_folio_range`.

use super::{huge::block, with_leaf};
use crate::mm::{
    entry::{flags::VmFlags, pte::RawPte},
    guard::FaultScope,
    large::object::Came,
    vma::Vma,
};
use crate::{
    addr::{Vpn, VpnRange},
    error::{FaultError, NoMemory},
    file::{MemoryObject, sealed},
    frame::{FrameFlags, FrameLock},
    notifier::Access,
};

impl Vma {
    /// Where the pages lie that came with the one at `at`, if all of them lie in the VMA and in the table of `at`.
    pub(in crate::mm) fn folio_at(&self, object: &dyn MemoryObject, at: Vpn) -> Option<VpnRange> {
        let index = self.pgoff_at(at);
        let pages = object.together(index, sealed::Ours);
        if pages.start < self.pgoff || pages.end > self.pgoff_end() || pages.end - pages.start < 2 {
            return None;
        }
        let lies = |index: u64| self.start().plus(index - self.pgoff);
        let there = VpnRange::new(lies(pages.start), lies(pages.end))?;
        block(at).covers(there).then_some(there)
    }
    /// Whether the page at `at`, beyond the end of the object, came with one before that.
    pub(in crate::mm) fn is_across_end(&self, object: &dyn MemoryObject, at: Vpn) -> bool {
        self.folio_at(object, at)
            .is_some_and(|there| self.pgoff_at(there.start()) < object.pages())
    }
    /// The pages of `around`, which the object has, with all those that came with the outermost of them.
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
    /// The page at `at`, locked; nothing, if it could be mapped together with what came with it, just now perhaps.
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
        if !mem.flags(locked.pfn()).contains(FrameFlags::LARGE) {
            let mapped = self.install_folio(vma, object, (at, &locked), access)?;
            return Ok((!mapped).then_some(locked));
        }
        // The lock of the first frame is that of the whole: who waits for it has no other.
        drop(locked);
        if self.fault_huge_object(vma, object, at, (access, Came::New))? {
            return Ok(None);
        }
        self.lock_page(vma, object, at, access).map(Some)
    }
    /// Maps the locked page at `at` and all that came with it, if none of them is mapped. Says whether it did.
    fn install_folio(
        &mut self,
        vma: &Vma,
        object: &dyn MemoryObject,
        (at, locked): (Vpn, &FrameLock<'_>),
        access: Access,
    ) -> Result<bool, NoMemory> {
        let Some(folio) = vma.folio_at(object, at) else {
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
                None => return Ok(false), // Split meanwhile, or somebody is at work on it.
            }
        }
        let first = match access {
            Access::Write => RawPte::frame(locked.pfn(), vma.rights()).mkdirty(),
            Access::Read => RawPte::frame(locked.pfn(), vma.mapped_rights()),
        };
        let is_locked = vma.flags.contains(VmFlags::LOCKED);
        with_leaf(self.lease.mm, &mut self.lease.cx, at, |leaf| {
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
        })
    }
}
