//! Migration of a page to another frame (`migrate_pages`); [`migrate_huge`](super::migrate_huge)
//! moves pages of 2 MiB.
//!
//! Every mapping of the page becomes a migration entry, each in a window; a fault on such an entry
//! waits for the lock of the old frame. Then the bytes are copied, and the entries become mappings
//! of the new frame. If something else holds the page, they become mappings of the old frame again.
//! Either way they get the rights that the entries say by then
//! ([`not_present`](crate::mm::entry::not_present)).

use crate::mm::{
    entry::{flags::VmFlags, pte::Rights},
    machine::Machine,
    page_table::LockedLeaf,
    space::Mm,
};
use crate::{
    addr::{PAGE_SIZE, Pfn, Vpn},
    ctx::{CallCx, FolioCx},
    error::NoMemory,
    frame::{Frame, FrameFlags, FrameLock, PhysMem},
    rmap::{Blocking, MappedAt, RmapCx, Unmap, restore, unmap_frame},
    trace,
};

impl Mm {
    /// Moves the page at byte `addr` to another frame, in all address spaces that map it, and
    /// returns the new frame's number. The rights of its mappings make no difference: a page that
    /// no process may access moves as well.
    ///
    /// A huge page moves as a whole, and stays mapped as it was. A private one of which a part was
    /// given back is split first, as is every one if no other huge page is free; then its single
    /// pages move, but for those that hold only zeros: these become the zero page.
    ///
    /// Returns `None` if no page is there, or if a reference beside the mappings is held, as by a
    /// driver. Nothing changed then, but windows were opened.
    ///
    /// A huge page of a pool moves as a whole or not at all, to a page of the pool that is free and
    /// not promised, or else to memory outside of the pool, which gets the old page in exchange. A
    /// page of 1 GiB moves only inside of the pool. A table that its address space shares with
    /// others is given up, as for every change of an entry in it; the last one's entry moves.
    ///
    /// # Errors
    ///
    /// [`NoMemory::Frame`]; nothing changed, but a huge page of no pool may have been split and
    /// parts of it moved.
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::{PAGE_SIZE, extmmu::Recorder, mm::MmapArgs};
    /// # let machine = emmu::Machine::new(Default::default());
    /// # let mut thread = machine.enter()?;
    /// # let mut cx = thread.cx();
    /// # let mm = emmu::Mm::new(&machine);
    ///
    /// let (recorder, registration) = mm.register(&mut cx, Recorder::new);
    /// let at = mm.mmap(&mut cx, &MmapArgs::anonymous(PAGE_SIZE))?;
    /// mm.store(&mut cx, at, 7)?;
    /// assert!(mm.migrate(&mut cx, at)?.is_some());
    /// assert!(!recorder.take().is_empty(), "an external MMU drops the page first");
    /// assert_eq!(mm.load(&mut cx, at)?, 7);
    /// mm.unregister(&mut cx, registration);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn migrate(&self, cx: &mut CallCx<'_>, addr: u64) -> Result<Option<Pfn>, NoMemory> {
        let _call = trace::call("migrate", addr, PAGE_SIZE);
        let mem = self.machine().mem();
        mem.drain_batches();
        let at = Vpn::containing(addr);
        let Some(frame) = self.mapped_at(cx, at) else {
            return Ok(None);
        };
        if mem.is_device(frame.pfn()) {
            return Ok(None);
        }
        match (mem.size_in_pool(frame.pfn()), mem.large(frame.pfn())) {
            (Some(size), _) => self.migrate_pooled(cx, frame, size),
            (None, Some(page)) => self.migrate_large(cx, frame, page),
            (None, None) => self.migrate_small(cx, frame),
        }
    }
    /// Moves a page that is not part of a huge page.
    pub(super) fn migrate_small(
        &self,
        cx: &mut CallCx<'_>,
        frame: Frame<'_>,
    ) -> Result<Option<Pfn>, NoMemory> {
        let mem = self.machine().mem();
        let new = mem.alloc().map_err(|_| NoMemory::Frame)?;
        let old = mem.lock(cx, frame);
        let Ok(new) = mem.try_lock(new) else {
            return Ok(None); // Cannot be: no other thread knows the new frame.
        };
        let copy = || {
            mem.copy(old.pfn(), new.pfn());
            true
        };
        let moved = self
            .machine()
            .migrate_locked(cx.descend(), &old, &new, copy);
        Ok(moved.then(|| new.pfn()))
    }
    /// Returns a reference on the frame that the entry maps, whatever rights the entry gives.
    pub(in crate::mm) fn mapped_at(&self, cx: &mut CallCx<'_>, at: Vpn) -> Option<Frame<'_>> {
        let mem = self.machine().mem();
        let mapped = self.with_leaf_of(cx, at, |leaf| {
            leaf.get(at).counted().map(|pfn| mem.get(pfn))
        });
        mapped?
    }
    /// Makes a migration entry a mapping again, with the rights that its VMA has by now.
    pub(in crate::mm) fn restore_at(
        &self,
        mut cx: RmapCx<'_>,
        spot: &MappedAt<'_>,
        old: Pfn,
        new: Pfn,
    ) {
        let mem = self.machine().mem();
        let flags = VmFlags::from_bits_retain(spot.flags);
        self.with_leaf_of(&mut cx, spot.at, |leaf| {
            if leaf.get(spot.at).migrating() == Some(old) {
                arrive(mem, leaf, spot.at, new, flags);
            }
        });
    }
}

impl Machine {
    /// Moves the page of a locked frame to another, in all address spaces that map it; `copy`
    /// copies the bytes, or returns false if it cannot. Returns false if the page stays, also
    /// because its last mapping went meanwhile.
    pub(in crate::mm) fn migrate_locked(
        &self,
        mut cx: FolioCx<'_>,
        old: &FrameLock<'_>,
        new: &FrameLock<'_>,
        copy: impl FnOnce() -> bool,
    ) -> bool {
        let mem = self.mem();
        if mem.mapcount(old.pfn()) == 0 {
            return false;
        }
        let mut entries = MigrationEntries {
            machine: self,
            cx: cx.reborrow(),
            old,
            to: old,
            before: mem.flags(old.pfn()),
        };
        let moved = entries.take_out() && self.hand_over(old, new, copy);
        if moved {
            entries.to = new;
        }
        drop(entries);
        moved
    }
}

/// Makes the migration entry at `at` a mapping of frame `new`, or an entry of the device that has
/// that frame, in a VMA with these flags.
pub(super) fn arrive(mem: &PhysMem, leaf: &LockedLeaf<'_>, at: Vpn, new: Pfn, flags: VmFlags) {
    let mark = leaf.get(at);
    let vma = Rights {
        read: flags.accessible(),
        write: flags.contains(VmFlags::WRITE),
    };
    if mark.is_swap_exclusive() {
        mem.set_flags(new, FrameFlags::ANON_EXCLUSIVE);
    }
    mem.share(new);
    if mem.is_private(new) {
        return leaf.set(at, mark.arrived_on_device(new, vma));
    }
    let dirty = mem.flags(new).contains(FrameFlags::DIRTY);
    leaf.set(at, mark.arrived(new, vma, dirty));
    if flags.contains(VmFlags::LOCKED) {
        mem.lru_lock(new);
    }
}

/// The migration entries of a page. They become mappings again when this is dropped, also by a
/// driver's panic: faults on them wait for that.
struct MigrationEntries<'a> {
    machine: &'a Machine,
    cx: FolioCx<'a>,
    old: &'a FrameLock<'a>,
    /// The frame that the entries will map.
    to: &'a FrameLock<'a>,
    /// The flags of the old frame before the migration.
    before: FrameFlags,
}

impl MigrationEntries<'_> {
    /// Replaces the mappings by migration entries. Returns true if all were replaced.
    fn take_out(&mut self) -> bool {
        let (mem, registry) = (self.machine.mem(), self.machine.registry());
        let how = (Unmap::Migration, Blocking::May);
        unmap_frame(registry, mem, &mut self.cx, self.old, how.0, how.1).is_ok()
    }
}

impl Drop for MigrationEntries<'_> {
    fn drop(&mut self) {
        restore(self.machine.registry(), &mut self.cx, self.old, self.to);
        // To the head of its list, as on Linux, which took the page off; also a page that was
        // locked in memory and is no longer.
        let moved = self.to.pfn() != self.old.pfn();
        let listed = FrameFlags::LRU | FrameFlags::UNEVICTABLE;
        if moved || self.before.intersects(listed) {
            self.machine.mem().lru_add(self.to.pfn());
        }
    }
}
