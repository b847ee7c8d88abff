//! A page moves to another frame: `migrate_pages`, for one page.
//!
//! All its mappings become marks, each in a window; who faults on a mark waits for the lock of the old frame. Then the
//! bytes are copied and the marks become mappings of the new frame. If anybody else holds the page, they become mappings
//! of the old one again.

use super::{
    Machine, Mm,
    flags::VmFlags,
    guard::Held,
    pte::{RawPte, Rights},
};
use crate::{
    addr::Pfn,
    ctx::{Cx, Sleepable, rank},
    error::NoMemory,
    frame::{FrameFlags, FrameLock},
    notifier::Access,
    rmap::{Blocking, OwnerRef, RmapCx, Spot, Unmap, restore, unmap_frame},
};

/// What a frame's flags say of its page, rather than of the frame.
const OF_THE_PAGE: FrameFlags = FrameFlags::ANON
    .union(FrameFlags::SWAP_BACKED)
    .union(FrameFlags::DIRTY)
    .union(FrameFlags::REFERENCED)
    .union(FrameFlags::ACTIVE)
    .union(FrameFlags::UNEVICTABLE);

impl Mm {
    /// Moves the page at byte `addr` to another frame, for all who map it, and returns the new frame's number. `None`:
    /// no page is there, or somebody holds it beside its mappings, as a driver's reference does; nothing changed then,
    /// but windows were opened.
    ///
    /// # Errors
    ///
    /// [`NoMemory::Frame`]; nothing changed.
    pub fn migrate(
        &self,
        cx: &mut Cx<'_, rank::Idle, Sleepable>,
        addr: u64,
    ) -> Result<Option<Pfn>, NoMemory> {
        let mem = self.machine().mem();
        let at = crate::addr::Vpn::containing(addr);
        let Some(frame) = self.frame_at(cx, at, Access::Read) else {
            return Ok(None);
        };
        if mem.flags(frame.pfn()).contains(FrameFlags::LARGE) {
            return Ok(None); // A huge page moves as a whole, or not at all.
        }
        let new = mem.alloc().map_err(|_| NoMemory::Frame)?;
        let old = mem.lock(cx, frame);
        let Ok(new) = mem.try_lock(new) else {
            return Ok(None); // Nobody knows it yet; cannot be.
        };
        Ok(self.migrate_locked(cx.descend(), &old, &new))
    }
    fn migrate_locked(
        &self,
        mut cx: Cx<'_, rank::Folio, Sleepable>,
        old: &FrameLock<'_>,
        new: &FrameLock<'_>,
    ) -> Option<Pfn> {
        let machine = self.machine();
        let mem = machine.mem();
        let cached = mem.flags(old.pfn()).contains(FrameFlags::SWAP_CACHE);
        if cached && !mem.swap_cache_drop(old.pfn()) {
            return None;
        }
        let mut marked = Marked {
            machine,
            cx: cx.reborrow(),
            old,
            to: old,
        };
        let gone = marked.take_out();
        let moved = gone && self.hand_over(old, new);
        if moved {
            marked.to = new;
        }
        drop(marked);
        moved.then(|| {
            mem.lru_add(new.pfn());
            new.pfn()
        })
    }
    /// The page is the new frame's from here on, if nobody but its owner and this caller hold the old one.
    fn hand_over(&self, old: &FrameLock<'_>, new: &FrameLock<'_>) -> bool {
        let machine = self.machine();
        let mem = machine.mem();
        let (from, to) = (old.pfn(), new.pfn());
        let Some(owner) = old.owner() else {
            return false;
        };
        mem.copy(from, to);
        mem.set_flags(to, mem.flags(from) & OF_THE_PAGE);
        if mem.flags(from).contains(FrameFlags::ANON) {
            let alone = mem.refcount(from) == 1;
            if alone {
                mem.set_owner(to, Some(owner));
            }
            return alone;
        }
        match machine.registry().find(owner.id) {
            Some(OwnerRef::Mapping(mapping)) => mapping
                .upgrade()
                .is_some_and(|m| m.replace(old, owner.index, new.frame())),
            _ => false,
        }
    }
    /// One mark becomes a mapping again; with the rights that the VMA has by now.
    pub(super) fn restore_at(&self, mut cx: RmapCx<'_>, spot: &Spot<'_>, old: Pfn, new: Pfn) {
        let mem = self.machine().mem();
        let flags = VmFlags::from_bits_retain(spot.flags);
        self.with_leaf_of(&mut cx, spot.at, |leaf| {
            let mark = leaf.get(spot.at);
            let Some((_, write)) = mark.migrating().filter(|(pfn, _)| *pfn == old) else {
                return;
            };
            let rights = Rights {
                read: flags.accessible(),
                write: write && flags.contains(VmFlags::WRITE),
            };
            if mark.is_swap_exclusive() {
                mem.set_flags(new, FrameFlags::ANON_EXCLUSIVE);
            }
            mem.share(new);
            let pte = RawPte::frame(new, rights).mkold();
            leaf.set(spot.at, if rights.write { pte.mkdirty() } else { pte });
        });
    }
}

/// Marks may be where the old frame was mapped. They become mappings again when this goes, also by a driver's panic: who
/// faults on one waits for that.
struct Marked<'a> {
    machine: &'a Machine,
    cx: Cx<'a, rank::Folio, Sleepable>,
    old: &'a FrameLock<'a>,
    /// What they are mappings of then.
    to: &'a FrameLock<'a>,
}

impl Marked<'_> {
    /// Says whether every mapping is a mark.
    fn take_out(&mut self) -> bool {
        let (mem, registry) = (self.machine.mem(), self.machine.registry());
        let how = (Unmap::Migration, Blocking::May);
        unmap_frame(registry, mem, &mut self.cx, self.old, how.0, how.1).is_ok()
    }
}

impl Drop for Marked<'_> {
    fn drop(&mut self) {
        restore(self.machine.registry(), &mut self.cx, self.old, self.to);
    }
}

impl Held<'_> {
    /// Waits until the page of a mark has arrived (`migration_entry_wait`).
    pub(super) fn wait_for_migration(&mut self, mark: RawPte) {
        let mem = self.lease.mm.machine().mem();
        let frame = mark.migrating().and_then(|(pfn, _)| mem.try_get(pfn));
        if let Some(frame) = frame {
            drop(mem.lock(&mut self.lease.cx, frame));
        }
    }
}
