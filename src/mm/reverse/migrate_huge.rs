//! Migration of a large page: as a whole, or split into single pages.
//!
//! All of its frames are locked, in ascending order. Every mapping becomes migration marks, in one
//! window over the part of the VMA that maps the page; a mark remembers that the page was mapped as
//! one. Then the bytes are copied, and the marks become mappings again, as they were.

use super::migrate::arrive;
use crate::mm::{
    entry::{flags::VmFlags, pte::RawPte},
    machine::{Machine, hand_over::OF_THE_PAGE},
    page_table::LockedLeaf,
    space::Mm,
    vma::hugetlb::with_shared_tables,
    window::{AsOne, Lease, leave},
};
use crate::{
    addr::{PMD_PAGES, Pfn, Vpn, VpnRange},
    ctx::{CallCx, FolioCx},
    error::NoMemory,
    frame::{Frame, FrameFlags, FrameLock, HUGE, HugeSize, Large, PhysMem},
    notifier::Event,
    rmap::{MappedAt, RmapCx, UnmapRefused, restore_large_page, unmap_large_page},
};

impl Mm {
    /// Moves the large page that `part` belongs to. Returns the new frame of `part`, if that moved.
    pub(super) fn migrate_large(
        &self,
        cx: &mut CallCx<'_>,
        part: Frame<'_>,
        page: Large,
    ) -> Result<Option<Pfn>, NoMemory> {
        let machine = self.machine();
        let mem = machine.mem();
        let pfn = part.pfn();
        drop(part); // One more reference would keep the page from moving.
        if let Some(parts) = lock_whole(mem, cx, page)
            && let Ok(new) = mem.alloc_like(page)
        {
            let moved = move_whole(machine, cx.descend(), (&parts, page), new.head());
            return Ok(moved.then(|| new.head().nth(page.place(pfn))));
        }
        self.migrate_split(cx, (pfn, page))
    }
    /// Moves the huge page of a pool that `part` belongs to. Returns the new frame of `part`, if
    /// the page moved (`unmap_and_move_huge_page`).
    pub(super) fn migrate_pooled(
        &self,
        cx: &mut CallCx<'_>,
        part: Frame<'_>,
        size: HugeSize,
    ) -> Result<Option<Pfn>, NoMemory> {
        let machine = self.machine();
        let mem = machine.mem();
        let pfn = part.pfn();
        let page = mem.large_or_pooled(pfn);
        drop(part); // One more reference would keep the page from moving.
        let new = mem.take_huge_to_move(size).ok_or(NoMemory::Frame)?;
        let Some(page) = page else {
            return Ok(None); // Cannot be: the page was in use.
        };
        let Some(parts) = lock_whole(mem, cx, page) else {
            return Ok(None);
        };
        let moved = move_whole(machine, cx.descend(), (&parts, page), new.head());
        Ok(moved.then(|| new.head().nth(page.place(pfn))))
    }
    /// Splits the large page that frame `pfn` is part of and moves its pages, the first one last,
    /// as the kernel's list has them (`try_split_folio`).
    fn migrate_split(
        &self,
        cx: &mut CallCx<'_>,
        (pfn, page): (Pfn, Large),
    ) -> Result<Option<Pfn>, NoMemory> {
        let machine = self.machine();
        let mem = machine.mem();
        let mut parts: Vec<Pfn> = mem.large_parts(page).collect();
        if parts.first() == Some(&page.head()) {
            parts.rotate_left(1);
        }
        if !machine.reclaimer().split(cx, pfn) {
            return Ok(None);
        }
        // Those that held only zeros are free, and may become the new frames of others.
        parts.retain(|&part| mem.refcount(part) > 0);
        let mut moved = None;
        for part in parts {
            let Some(frame) = mem.try_get(part) else {
                continue; // Given up meanwhile.
            };
            let to = self.migrate_small(cx, frame)?;
            if part == pfn {
                moved = to;
            }
        }
        Ok(moved)
    }
    /// See [`RmapTarget::leave_large`](crate::rmap::RmapTarget::leave_large).
    pub(super) fn leave_large_at(
        &self,
        cx: RmapCx<'_>,
        spot: &MappedAt<'_>,
        part: VpnRange,
        page: Large,
    ) {
        let mem = self.machine().mem();
        let flags = VmFlags::from_bits_retain(spot.flags);
        let wide = with_shared_tables(spot.vma, flags, part);
        let mut window = Lease { mm: self, cx }.into_window(wide, Event::Clear);
        if flags.contains(VmFlags::HUGETLB) {
            window.unshare_tables(part);
        }
        // A page that is pinned stays, and so will the others.
        let _pinned = window.leaves_in(part, |txn| {
            let size = match txn.leaf().is_huge() {
                true => AsOne::Yes,
                false => AsOne::No,
            };
            if size == AsOne::Yes
                && txn
                    .range()
                    .iter()
                    .any(|at| is_kept(mem, txn.leaf().get(at)))
            {
                return Err(UnmapRefused::Needed);
            }
            for at in txn.range().iter() {
                if let Some(slot) = txn.entry(at)
                    && let Some(pfn) = slot.raw().counted().filter(|&pfn| page.contains(pfn))
                {
                    leave(slot, pfn, flags, size)?;
                }
            }
            Ok::<(), UnmapRefused>(())
        });
        window.close();
    }
    /// See [`RmapTarget::restore_large`](crate::rmap::RmapTarget::restore_large).
    pub(super) fn restore_large_at(
        &self,
        mut cx: RmapCx<'_>,
        spot: &MappedAt<'_>,
        part: VpnRange,
        (old, new): (Large, Pfn),
    ) {
        let mem = self.machine().mem();
        // A large page is locked by `mlock` or by reclaim, which see all of its mappings, and not
        // by one that comes back (`__folio_add_rmap`). One of a pool is on no list of reclaim.
        let flags = VmFlags::from_bits_retain(spot.flags) - VmFlags::LOCK_MASK;
        self.for_each_locked_leaf(&mut cx, part, |part, leaf| {
            let as_one = are_one(leaf, part, old) && mem.is_large(new);
            for at in part.iter() {
                let from = leaf.get(at).migrating();
                if let Some(from) = from.filter(|&from| old.contains(from)) {
                    arrive(mem, leaf, at, new.nth(old.place(from)), flags);
                }
            }
            if as_one {
                leaf.set_huge(true);
            }
        });
    }
}

/// Returns true if the entry maps an exclusive page that is pinned: with it, all pages that are
/// mapped as one stay.
fn is_kept(mem: &PhysMem, pte: RawPte) -> bool {
    let own = |pfn| mem.flags(pfn).contains(FrameFlags::ANON_EXCLUSIVE);
    pte.counted()
        .is_some_and(|pfn| own(pfn) && mem.is_pinned(pfn))
}

/// Returns true if `part` is a whole leaf of marks of the large page `old`, which was mapped as
/// one, and all are alike: none was dropped meanwhile, or changed without the others.
fn are_one(leaf: &LockedLeaf<'_>, part: VpnRange, old: Large) -> bool {
    let Some(first_frame) = leaf
        .get(part.start())
        .migrating()
        .filter(|&pfn| old.contains(pfn))
    else {
        return false;
    };
    let kind = |mark: RawPte| {
        let (write, exclusive) = (mark.was_writable(), mark.is_swap_exclusive());
        (write, exclusive, mark.is_uffd_wp())
    };
    let first = kind(leaf.get(part.start()));
    let is_same = |(i, at): (u32, Vpn)| {
        let mark = leaf.get(at);
        mark.was_huge() && mark.migrating() == Some(first_frame.nth(i)) && kind(mark) == first
    };
    part.pages() == PMD_PAGES && (0..HUGE).zip(part.iter()).all(is_same)
}

/// Locks all frames of a large page, in ascending order; `None` if one of them was given back.
fn lock_whole<'m>(
    mem: &'m PhysMem,
    cx: &mut CallCx<'_>,
    page: Large,
) -> Option<Vec<FrameLock<'m>>> {
    let lock = |pfn| {
        let locked = mem.lock(cx, mem.try_get(pfn)?);
        (mem.large_or_pooled(pfn) == Some(page)).then_some(locked)
    };
    page.all().map(lock).collect()
}

/// Moves a large page, whose frames are locked, to `new`, which no other thread knows. Returns true
/// if it did.
fn move_whole(
    machine: &Machine,
    cx: FolioCx<'_>,
    (parts, page): (&[FrameLock<'_>], Large),
    new: Pfn,
) -> bool {
    let mem = machine.mem();
    let old = &parts[0];
    if mem.mappings_of_whole(page) == 0 {
        return false; // Its last mapping went during the wait for the locks.
    }
    let Ok(to) = mem.try_lock(mem.get(new)) else {
        return false; // Cannot be: no other thread knows the new frames.
    };
    let mut marks = LargeMarks {
        machine,
        cx,
        page,
        to: old,
        before: parts.iter().map(|part| mem.flags(part.pfn())).collect(),
    };
    let gone = unmap_large_page(machine.registry(), mem, &mut marks.cx, (old, page));
    let moved = gone && hand_over(machine, (parts, page), new);
    if moved {
        marks.to = &to;
    }
    moved
}

/// Gives the pages to the new frames, if only their owner and this caller hold the old ones.
/// Returns true if it did.
fn hand_over(machine: &Machine, (parts, page): (&[FrameLock<'_>], Large), new: Pfn) -> bool {
    let mem = machine.mem();
    let old = &parts[0];
    let Some(owner) = old.owner() else {
        return false;
    };
    let is_anon = mem.flags(old.pfn()).contains(FrameFlags::ANON);
    // The reference of the owner, if it has one, and of the lock; see `Mm::hand_over`.
    let expected = if is_anon { 1 } else { 2 };
    let is_alone = |part: &FrameLock<'_>| mem.refcount(part.pfn()) == expected;
    if !parts.iter().all(is_alone) {
        return false;
    }
    for (i, part) in (0..).zip(parts) {
        mem.copy(part.pfn(), new.nth(i));
        mem.set_flags(new.nth(i), mem.flags(part.pfn()) & OF_THE_PAGE);
    }
    let done = if is_anon {
        parts.iter().all(is_alone)
    } else {
        let found = machine.registry().find(owner.id);
        found.is_some_and(|object| object.replace(parts, owner.index, new))
    };
    if done && is_anon {
        for (i, part) in (0..).zip(parts) {
            mem.set_owner(new.nth(i), part.owner());
        }
    }
    // Before the marks become mappings, whose end asks the pool.
    if done && !mem.move_in_pool(page, new) {
        mem.forget_large(page);
    }
    done
}

/// The migration marks of a large page. They become mappings again when this is dropped, also by a
/// driver's panic: faults on them wait for that.
struct LargeMarks<'a> {
    machine: &'a Machine,
    cx: FolioCx<'a>,
    page: Large,
    /// The first frame that the marks will map.
    to: &'a FrameLock<'a>,
    /// The flags of the old frames before the migration.
    before: Vec<FrameFlags>,
}

impl Drop for LargeMarks<'_> {
    fn drop(&mut self) {
        let (mem, old) = (self.machine.mem(), self.page);
        restore_large_page(self.machine.registry(), &mut self.cx, old, self.to);
        if mem.is_of_pool(self.to.pfn()) {
            return; // On no list.
        }
        // To the heads of their lists, as `MigrationEntries` does.
        let moved = self.to.pfn() != old.head();
        let listed = FrameFlags::LRU | FrameFlags::UNEVICTABLE;
        for (i, before) in (0..).zip(&self.before) {
            let part = self.to.pfn().nth(i);
            let has_place = mem.stands_for(part) == part;
            if has_place && (moved || before.intersects(listed)) {
                mem.lru_add(part);
            }
        }
    }
}
