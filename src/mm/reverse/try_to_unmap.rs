//! One mapping of a frame is taken out, for reclaim: `try_to_unmap_one`.

use crate::mm::{
    entry::{flags::VmFlags, pte::RawPte, release::Detached},
    guard::Lease,
    space::Mm,
    window::{InvalidationWindow, PteSlot},
};
use crate::{
    addr::{Pfn, VpnRange},
    ctx::Context,
    frame::{FrameFlags, PhysMem},
    notifier::{Event, WouldBlock},
    rmap::{Blocking, MappedAt, RmapCx, Unmap, UnmapRefused},
};

impl Mm {
    /// The window opens before anybody looks whether the page is mapped here, as on Linux.
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

/// Takes the mapping out inside the window.
fn take_in<C: Context>(
    mut window: InvalidationWindow<'_, C>,
    spot: &MappedAt<'_>,
    pfn: Pfn,
    how: Unmap,
) -> Result<(), UnmapRefused> {
    let flags = VmFlags::from_bits_retain(spot.flags);
    let done = window.lock_ptes(spot.at, |txn| {
        let huge = txn.leaf().is_huge();
        match txn.slot(spot.at) {
            Some(slot) if slot.raw().counted() != Some(pfn) => Ok(()),
            // It goes as a whole or not at all; who takes out pages has split those that it saw.
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
    // Memory that is locked may move; it may not go.
    let goes = !matches!(how, Unmap::Migration | Unmap::Replace);
    if flags.contains(VmFlags::LOCKED) && goes {
        return Err(UnmapRefused::Needed);
    }
    let nonlinear = flags.contains(VmFlags::NONLINEAR);
    if nonlinear && how == Unmap::Migration {
        return Err(UnmapRefused::Needed); // Its mark would not be found again.
    }
    if pte.is_dirty() {
        mem.set_flags(pfn, FrameFlags::DIRTY);
    }
    let state = mem.flags(pfn);
    match how {
        Unmap::Discard if state.contains(FrameFlags::ANON) => {
            // Given up by MADV_FREE. Written since: wanted after all.
            let dirty = state.contains(FrameFlags::DIRTY) && !flags.contains(VmFlags::DROPPABLE);
            if dirty {
                mem.set_flags(pfn, FrameFlags::SWAP_BACKED);
                return Err(UnmapRefused::Needed);
            }
            // Every reference but the reclaimer's is a mapping: nobody else looks at it.
            if mem.refcount(pfn) != 1 + mem.mapcount(pfn) {
                return Err(UnmapRefused::Needed);
            }
            Detached::give_up_locked(slot.clear());
        }
        Unmap::Discard | Unmap::Replace => {
            // Its use has been asked for; that it ends is none.
            let place = mem.owner(pfn).filter(|_| nonlinear);
            let left = place.map_or(RawPte::NONE, |owner| RawPte::file(owner.index));
            Detached::give_up_locked(slot.take(pte.mkold(), left));
        }
        Unmap::Migration => {
            let mark = pte.leaving(no_more_exclusive(mem, pfn));
            // What it says of the use of the page, the mark keeps.
            Detached::give_up_locked(slot.take(pte.mkold(), mark));
            if flags.contains(VmFlags::LOCKED) {
                // Locked again by those mappings that come back, and are locked then.
                mem.clear_flags(pfn, FrameFlags::UNEVICTABLE);
            }
        }
        Unmap::Swap(swap) => {
            mem.swap_dup(swap);
            let left = RawPte::swap(swap, no_more_exclusive(mem, pfn));
            Detached::give_up_locked(slot.replace(left));
        }
    }
    Ok(())
}

/// From here on the entry that is left says whether the page is nobody else's, and not the frame: what goes over the entry
/// knows nothing of the frame (`folio_try_share_anon_rmap_pte`). Returns whether it is.
fn no_more_exclusive(mem: &PhysMem, pfn: Pfn) -> bool {
    let exclusive = mem.flags(pfn).contains(FrameFlags::ANON_EXCLUSIVE);
    mem.clear_flags(pfn, FrameFlags::ANON_EXCLUSIVE);
    exclusive
}
