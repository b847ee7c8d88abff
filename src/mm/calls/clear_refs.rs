//! `/proc/PID/clear_refs`: forgets that pages were used.

use crate::mm::{entry::flags::VmFlags, space::Mm};
use crate::{
    addr::VpnRange, ctx::CallCx, error::ClearRefsError, frame::FrameFlags, notifier::Event,
};

/// Clears the accessed state of all pages.
const ALL: i64 = 1;
/// … of private anonymous memory.
const ANON: i64 = 2;
/// … of memory of objects.
const MAPPED: i64 = 3;
/// Clears the soft-dirty bits.
const SOFT_DIRTY: i64 = 4;
/// Resets the highest resident size.
const HIGHEST_RSS: i64 = 5;

impl Mm {
    /// Does what a write of `number` to `/proc/PID/clear_refs` does (`clear_refs_write`): 1 clears
    /// the accessed state of every page in the page table, 2 of private anonymous memory alone, 3
    /// of memory of objects; external MMUs are not asked. 4 opens one window over everything: there
    /// are no soft-dirty bits here, as on a kernel without them. 5 resets a figure that is not kept
    /// here.
    ///
    /// # Errors
    ///
    /// [`ClearRefsError`]: another number.
    pub fn clear_refs(&self, cx: &mut CallCx<'_>, number: i64) -> Result<(), ClearRefsError> {
        match number {
            ALL | ANON | MAPPED => self.clear_accessed(cx, number),
            SOFT_DIRTY => {
                let mut g = self.lock_shared(cx);
                g.lease().window(VpnRange::ALL, Event::SoftDirty).close();
            }
            HIGHEST_RSS => {}
            other => return Err(ClearRefsError(other)),
        }
        Ok(())
    }
    fn clear_accessed(&self, cx: &mut CallCx<'_>, number: i64) {
        let mem = self.machine().mem();
        let mut g = self.lock_shared(cx);
        let chosen = |anonymous| number == ALL || (number == ANON) == anonymous;
        let vmas = g.layout.vmas.iter();
        // Huge pages of a pool have no entry that the walk knows.
        let small = vmas.filter(|vma| !vma.flags.contains(VmFlags::HUGETLB));
        let parts = small.filter(|vma| chosen(vma.is_anonymous()));
        let parts: Vec<VpnRange> = parts.map(|vma| vma.range()).collect();
        for part in parts {
            self.for_each_locked_leaf(&mut g.cx, part, |part, leaf| {
                for at in part.iter() {
                    let pte = leaf.get(at);
                    if pte.is_present() {
                        leaf.set(at, pte.mkold());
                    }
                    if let Some(pfn) = pte.counted() {
                        mem.clear_flags(pfn, FrameFlags::REFERENCED);
                    }
                }
            });
        }
    }
}
