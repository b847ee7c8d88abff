//! The advices that work on pages: dropping, lazy freeing, cooling, guard markers.

use super::{MmapWriteGuard, fault::with_leaf, flags::VmFlags, pte::RawPte, window::Zap};
use crate::{
    addr::{Vpn, VpnRange},
    error::{MadviseError, NoMemory},
    notifier::Event,
};
use std::convert::Infallible;

impl MmapWriteGuard<'_> {
    /// `MADV_DONTNEED`: one window, also when nothing is there. Leaves that a large range emptied are freed.
    pub(super) fn discard(&mut self, part: VpnRange) {
        let mut window = self.window(part, Event::Clear);
        window.zap(part, Zap::Pages);
        window.free_empty_leaves(part);
        window.close();
    }
    /// `MADV_FREE`: the pages are clean and old from here on, so that reclaim may drop them.
    pub(super) fn free_lazily(&mut self, part: VpnRange) {
        let mut window = self.window(part, Event::Clear);
        window
            .leaves_in(part, |txn| {
                txn.for_each(|slot| {
                    if slot.raw().counted().is_some() {
                        slot.clean();
                    }
                });
                Ok::<(), Infallible>(())
            })
            .unwrap_or_else(|e| match e {});
        window.close();
    }
    /// `MADV_COLD`: no window, since an entry that looks older is as good as before.
    pub(super) fn cool(&mut self, part: VpnRange) {
        let mm = self.mm;
        let pinned = self.cx.pin();
        mm.table
            .leaves(part, mm.table.pin(pinned.guard()), |part, leaf| {
                let leaf = leaf.lock();
                for at in part.iter() {
                    let pte = leaf.get(at);
                    if pte.is_present() && pte.is_young() {
                        leaf.set(at, pte.mkold());
                    }
                }
                Ok::<(), Infallible>(())
            })
            .unwrap_or_else(|e| match e {});
    }

    /// `MADV_GUARD_INSTALL`: markers up to the first present page; that takes a window over the whole part.
    pub(super) fn install_guards(
        &mut self,
        start: Vpn,
        part: VpnRange,
    ) -> Result<(), MadviseError> {
        // Markers are something that fork must copy: what tells it is the flag.
        if self.vma(start).is_anonymous() {
            self.layout.prepare_anon(start).map_err(no_memory)?;
        }
        self.layout
            .change(start, |vma| vma.flags |= VmFlags::MAYBE_GUARD);
        while !self.mark_guards(part)? {
            let mut window = self.window(part, Event::Clear);
            window.zap(part, Zap::Pages);
            window.close();
        }
        Ok(())
    }
    /// Marks page by page; `false` at the first one that is present.
    fn mark_guards(&mut self, part: VpnRange) -> Result<bool, MadviseError> {
        for at in part.iter() {
            let free = with_leaf(self.mm, &mut self.cx, at, |leaf| {
                let present = leaf.get(at).is_present();
                if !present {
                    leaf.set(at, RawPte::GUARD);
                }
                !present
            });
            if !free.map_err(no_memory)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
    /// `MADV_GUARD_REMOVE`: no window, since a marker maps nothing.
    pub(super) fn remove_guards(&mut self, part: VpnRange) {
        let mm = self.mm;
        let pinned = self.cx.pin();
        mm.table
            .leaves(part, mm.table.pin(pinned.guard()), |part, leaf| {
                let leaf = leaf.lock();
                for at in part.iter().filter(|&at| leaf.get(at).is_guard()) {
                    leaf.set(at, RawPte::NONE);
                }
                Ok::<(), Infallible>(())
            })
            .unwrap_or_else(|e| match e {});
    }
}

fn no_memory(e: NoMemory) -> MadviseError {
    MadviseError::NoMemory(e)
}
