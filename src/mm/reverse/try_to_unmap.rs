//! Unmaps a frame from one place, for reclaim and migration (`try_to_unmap_one`,
//! `try_to_migrate_one`).

use crate::mm::{
    entry::{flags::VmFlags, pte::RawPte, release::RemovedPte},
    space::Mm,
    window::{AsOne, InvalidationWindow, Lease, Marks, PteSlot, leave, no_more_exclusive},
};
use crate::{
    addr::{Pfn, VpnRange},
    ctx::Context,
    frame::FrameFlags,
    notifier::{Event, WouldBlock},
    rmap::{Blocking, MappedAt, RmapCx, Unmap, UnmapRefused},
};

impl Mm {
    /// Replaces the mapping of the frame at the spot by the entry that `how` leaves, if there is a
    /// mapping. The window opens before the entry is read, as on Linux.
    pub(in crate::mm) fn try_to_unmap_at(
        &self,
        cx: RmapCx<'_>,
        spot: &MappedAt<'_>,
        pfn: Pfn,
        how: Unmap,
        blocking: Blocking,
    ) -> Result<(), UnmapRefused> {
        let range = VpnRange::single(spot.at);
        let mut lease = Lease { mm: self, cx };
        match blocking {
            Blocking::May => take_in(lease.window(range, Event::Clear), spot, pfn, how),
            Blocking::MustNot => match lease.try_window(range, Event::Clear) {
                Ok(window) => take_in(window, spot, pfn, how),
                Err(WouldBlock) => Err(UnmapRefused::WouldBlock),
            },
        }
    }
}

/// Unmaps inside the window.
fn take_in<C: Context>(
    mut window: InvalidationWindow<'_, C>,
    spot: &MappedAt<'_>,
    pfn: Pfn,
    how: Unmap,
) -> Result<(), UnmapRefused> {
    let flags = VmFlags::from_bits_retain(spot.flags);
    let done = window.lock_ptes(spot.at, |txn| {
        let huge = txn.leaf().is_huge();
        match txn.entry(spot.at) {
            Some(slot) if slot.raw().mapped() != Some(pfn) => Ok(()),
            // A huge page is unmapped as a whole or not at all. The caller has split the huge pages
            // that it saw.
            Some(_) if huge => Err(UnmapRefused::Needed),
            Some(slot) => take_out(slot, pfn, flags, how),
            None => Ok(()),
        }
    });
    window.close();
    done.unwrap_or(Ok(()))
}

fn take_out(slot: PteSlot<'_>, pfn: Pfn, flags: VmFlags, how: Unmap) -> Result<(), UnmapRefused> {
    let mem = slot.mem();
    let pte = slot.raw();
    // Locked memory may move, but must not be reclaimed.
    let is_reclaimed = !matches!(how, Unmap::Migration | Unmap::Replace);
    if flags.contains(VmFlags::LOCKED) && is_reclaimed {
        return Err(UnmapRefused::Needed);
    }
    let nonlinear = flags.contains(VmFlags::NONLINEAR);
    if nonlinear && how == Unmap::Migration {
        return Err(UnmapRefused::Needed); // Its migration entry would not be found again.
    }
    if pte.is_dirty() {
        mem.set_flags(pfn, FrameFlags::DIRTY);
    }
    let state = mem.flags(pfn);
    match how {
        Unmap::Discard if state.contains(FrameFlags::ANON) => {
            // Given up by MADV_FREE, but written since: the process wants it after all.
            let dirty = state.contains(FrameFlags::DIRTY) && !flags.contains(VmFlags::DROPPABLE);
            if dirty {
                mem.set_flags(pfn, FrameFlags::SWAP_BACKED);
                return Err(UnmapRefused::Needed);
            }
            // Every reference but the reclaimer's must be a mapping: nothing else may use the page.
            if mem.refcount(pfn) != 1 + mem.mapcount(pfn) {
                return Err(UnmapRefused::Needed);
            }
            RemovedPte::give_up_locked(slot.clear());
        }
        Unmap::Discard | Unmap::Replace => {
            // The page's use was asked for before; that its mapping ends is no use.
            let place = mem.owner(pfn).filter(|_| nonlinear);
            let left = match place {
                Some(owner) => RawPte::file(owner.index),
                None => Marks::of(false, flags).after(pte),
            };
            RemovedPte::give_up_locked(slot.take(pte.mkold(), left));
        }
        Unmap::Migration => leave(slot, pfn, flags, AsOne::No)?,
        Unmap::Swap(swap) => {
            let left = RawPte::swap(swap, no_more_exclusive(mem, pfn)?);
            mem.swap_dup(swap);
            RemovedPte::give_up_locked(slot.replace(left.in_place_of(pte)));
        }
    }
    Ok(())
}
