//! Copy-on-write: the decision whether a write to a read-only entry copies (`do_wp_page`). For
//! entries of huge pages `huge` decides it.
//!
//! * Shared memory: the entry becomes writable.
//! * A private frame to which no other process has access (marked exclusive, or the entry's
//!   reference is its only one): the page is written in place. This needs no window, since every
//!   translation that an external MMU may hold stays right.
//! * All else, the zero page included: a copy takes the page's place, in a window over the one
//!   page.

use super::scope::{FaultScope, WindowWork};
use crate::mm::{
    entry::{flags::VmFlags, pte::RawPte},
    page_table::LockedLeaf,
    vma::Vma,
};
use crate::{
    addr::{Pfn, Vpn},
    error::FaultError,
    frame::{Frame, FrameFlags, Owner, PhysMem},
    notifier::Access,
};

/// The facts that decide whether a private page may be written in place.
#[derive(Clone, Copy)]
struct Reuse {
    /// Of a part of a large page: true if this process has all of the large page.
    whole: Option<bool>,
    /// The owner of a page of this VMA that no other process has.
    home: Option<Owner>,
}

/// The decision about a write to a present, read-only entry.
enum WriteDecision<'m> {
    /// Nothing is left to do: the entry is writable, or has changed since it was read.
    Done,
    /// Copy this frame; without one, the copy of the zero page is a zeroed frame.
    Copy(Option<Frame<'m>>),
}

impl FaultScope<'_> {
    /// Handles a write to the read-only entry `seen`: makes it writable, or copies. `huge`: the
    /// entry was part of a huge page.
    pub(in crate::mm) fn fault_protected(
        &mut self,
        vma: &Vma,
        at: Vpn,
        (seen, huge): (RawPte, bool),
    ) -> Result<(), FaultError> {
        let mem = self.lease.mm.machine().mem();
        let shared = vma.flags.contains(VmFlags::SHARED);
        let mut seen = seen;
        if seen.is_uffd_wp() && vma.is_uffd_wp() {
            match self.write_to_protected(vma, at, seen)? {
                Some(lifted) => seen = lifted,
                None => return Ok(()),
            }
        }
        if huge {
            // A mapping that was split has other entries by now, and they may have changed since,
            // as for a page that moves: the access faults again.
            return self.fault_huge_protected(vma, at);
        }
        if vma.notes_writes() {
            return self.notify_object(vma, at, seen);
        }
        let reuse = self.reuse(vma, at, seen.counted().filter(|_| !shared));
        let reused = seen.with_rights(vma.rights()).mkdirty();
        let decide = |leaf: &LockedLeaf<'_>| decide(mem, leaf, at, (seen, reused), shared, reuse);
        match self.with_leaf(at, decide)? {
            WriteDecision::Done => Ok(()),
            WriteDecision::Copy(original) => self.copy(vma, at, seen, original, |copy| {
                RawPte::frame(copy, vma.rights()).mkdirty()
            }),
        }
    }

    /// Collects the facts about the private page at `at`, before the lock of its entry is taken.
    fn reuse(&mut self, vma: &Vma, at: Vpn, page: Option<Pfn>) -> Reuse {
        let mem = self.lease.mm.machine().mem();
        let large = page.filter(|&pfn| mem.is_large(pfn));
        Reuse {
            whole: large.map(|pfn| self.has_all_of(pfn)),
            home: vma.anon_node().map(|node| node.owner(vma.pgoff_at(at))),
        }
    }

    /// Makes the page behind the entry `seen` this process's own, by a copy if it must, and leaves
    /// the entry read-only: for a reader that keeps the page (`FAULT_FLAG_UNSHARE`). The copy of
    /// the zero page is a zeroed frame. A huge page that this process does not have alone only gets
    /// its mapping split; the caller looks at the entry again.
    pub(in crate::mm) fn unshare(
        &mut self,
        vma: &Vma,
        at: Vpn,
        seen: RawPte,
    ) -> Result<(), FaultError> {
        let mem = self.lease.mm.machine().mem();
        if vma.flags.contains(VmFlags::HUGETLB) {
            return self.unshare_hugetlb(vma, at, seen);
        }
        if self.lease.mm.is_huge(&mut self.lease.cx, at) {
            return self.unshare_huge(vma, at);
        }
        let reuse = self.reuse(vma, at, seen.counted());
        let decision = self.with_leaf(at, |leaf| match seen.counted() {
            _ if leaf.get(at) != seen => WriteDecision::Done,
            Some(pfn) if may_reuse(mem, pfn, reuse) => WriteDecision::Done,
            page => WriteDecision::Copy(page.map(|pfn| mem.get(pfn))),
        })?;
        match decision {
            WriteDecision::Done => Ok(()),
            WriteDecision::Copy(original) => self.copy(vma, at, seen, original, |copy| {
                // The entry is clean, and the bytes are nowhere else: a fork shares the page, and
                // `MADV_FREE` of one process would have reclaim drop it for all.
                mem.set_flags(copy, FrameFlags::DIRTY);
                RawPte::frame(copy, vma.read_only()).in_place_of(seen)
            }),
        }
    }

    /// Returns true if more than one page of the large page of frame `part` is mapped, all by this
    /// process, and nothing else holds a reference (`__wp_can_reuse_large_anon_folio`). The last
    /// mapped page is copied instead, so that the large page is freed.
    fn has_all_of(&mut self, part: Pfn) -> bool {
        let mm = self.lease.mm;
        let mem = mm.machine().mem();
        let Some(page) = mem.large(part) else {
            return false;
        };
        let mapped = mem.large_mappings(page);
        let held = mem.large_parts(page).map(|p| u64::from(mem.refcount(p)));
        mapped > 1
            && held.sum::<u64>() == mapped
            && mm.has_alone(&mut self.lease.cx.descend(), part)
    }

    /// Makes the entry writable after the object has agreed to the write (`wp_page_shared`). The
    /// object may have replaced the page meanwhile; then this one is mapped no longer, and the
    /// access faults again.
    fn notify_object(&mut self, vma: &Vma, at: Vpn, seen: RawPte) -> Result<(), FaultError> {
        let object = vma.object().expect("it notes writes").as_ref();
        let index = seen
            .counted()
            .filter(|_| vma.flags.contains(VmFlags::NONLINEAR))
            .and_then(|pfn| self.lease.mm.machine().mem().owner(pfn))
            .map_or(vma.pgoff_at(at), |owner| owner.index);
        let locked = self.lock_index(vma, object, (at, index), Access::Write)?;
        let pte = seen.with_rights(vma.rights()).mkdirty();
        self.with_leaf(at, |leaf| {
            if leaf.get(at) == seen && seen.counted() == Some(locked.pfn()) {
                leaf.set(at, pte);
            }
        })?;
        Ok(())
    }

    /// Copies the page, and replaces its entry in a window (`wp_page_copy`). Every step that can
    /// fail comes before the window.
    fn copy(
        &mut self,
        vma: &Vma,
        at: Vpn,
        seen: RawPte,
        original: Option<Frame<'_>>,
        entry: impl FnOnce(Pfn) -> RawPte,
    ) -> Result<(), FaultError> {
        let mem = self.lease.mm.machine().mem();
        let copy = self.new_anon(vma, at)?;
        if let Some(original) = &original {
            mem.copy(original.pfn(), copy.pfn());
        }
        let pte = entry(copy.pfn());
        self.in_window(WindowWork::Copy {
            at,
            seen,
            copy: copy.into_raw(),
            pte,
            original: original.map(Frame::into_raw),
            locked: vma.flags.contains(VmFlags::LOCKED),
        });
        Ok(())
    }
}

/// Decides under the lock of the leaf. Takes a reference on the page to be copied, which keeps it
/// until the copy is done.
fn decide<'m>(
    mem: &'m PhysMem,
    leaf: &LockedLeaf<'_>,
    at: Vpn,
    (seen, reused): (RawPte, RawPte),
    shared: bool,
    reuse: Reuse,
) -> WriteDecision<'m> {
    if leaf.get(at) != seen {
        return WriteDecision::Done;
    }
    let Some(pfn) = seen.counted() else {
        return WriteDecision::Copy(None);
    };
    if shared || may_reuse(mem, pfn, reuse) {
        leaf.set(at, reused);
        return WriteDecision::Done;
    }
    WriteDecision::Copy(Some(mem.get(pfn)))
}

/// Returns true if no other entry maps the frame and nothing else holds it
/// (`wp_can_reuse_anon_folio`). Then it becomes this VMA's alone, and reverse maps look for it
/// nowhere else (`folio_move_anon_rmap`). A merged page belongs to no process, so it is always
/// copied.
fn may_reuse(mem: &PhysMem, pfn: Pfn, reuse: Reuse) -> bool {
    let flags = mem.flags(pfn);
    if !flags.contains(FrameFlags::ANON) {
        return false;
    }
    if flags.contains(FrameFlags::ANON_EXCLUSIVE) {
        return true;
    }
    // A part of a large page is reused only together with all of it. The page may have been split
    // since that was looked at: then the operation that split it may have this page locked.
    if flags.contains(FrameFlags::LARGE) {
        let whole = reuse.whole == Some(true);
        if whole {
            mem.set_flags(pfn, FrameFlags::ANON_EXCLUSIVE);
        }
        return whole;
    }
    let cached = flags.contains(FrameFlags::SWAP_CACHE);
    if mem.is_collected(pfn) || mem.refcount(pfn) > 1 + u32::from(cached) || mem.is_merged(pfn) {
        return false;
    }
    // Another operation has the page locked: copy rather than wait for it.
    let Ok(locked) = mem.try_lock(mem.get(pfn)) else {
        return false;
    };
    // The cache gives up its reference if no entry refers to the slot.
    if cached && !mem.swap_cache_drop(&locked) {
        return false;
    }
    // The references of this entry and of the lock.
    if mem.refcount(pfn) != 2 {
        return false;
    }
    mem.set_flags(pfn, FrameFlags::ANON_EXCLUSIVE);
    if let Some(home) = reuse.home {
        mem.set_owner(pfn, Some(home));
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        addr::PAGE_SIZE,
        mm::{
            entry::{
                args::MmapArgs,
                flags::{Advice, Prot},
            },
            machine::Machine,
            space::Mm,
        },
    };
    use std::thread;

    const SIZE: u64 = 2 << 20;

    /// After a write has found that its process has all of a huge page, the page is split and one
    /// page of it merged with a page of another process. That page is not written in place.
    #[test]
    fn a_page_that_is_merged_meanwhile_is_copied() {
        let machine = Machine::new(Default::default());
        let mut thread = machine.enter().unwrap();
        let mut cx = thread.cx();
        let (mm, other) = (Mm::new(&machine), Mm::new(&machine));
        let addr = 0x4000_0000;
        let args = MmapArgs::anonymous(SIZE).fixed(addr);
        for mm in [&mm, &other] {
            mm.mmap(&mut cx, &args).unwrap();
        }
        mm.madvise(&mut cx, addr, SIZE, Advice::HugePage).unwrap();
        for mm in [&mm, &other] {
            mm.store(&mut cx, addr, 7).unwrap();
        }
        // Clean, and not known to be the process's own.
        mm.madvise(&mut cx, addr, SIZE, Advice::Free).unwrap();
        mm.fork(&mut cx).unwrap().exit(&mut cx);
        // Mapped by small entries.
        for prot in [Prot::READ, Prot::READ | Prot::WRITE] {
            mm.mprotect(&mut cx, addr + PAGE_SIZE, PAGE_SIZE, prot)
                .unwrap();
        }
        let at = Vpn::containing(addr);
        let mem = machine.mem();
        let mut g = mm.lock_shared(&mut cx);
        let mut scope = FaultScope::of(&mut g);
        let vma = scope.layout.vmas.get(at).unwrap();
        let seen = scope.look(at).unwrap();
        let reuse = scope.reuse(vma, at, seen.counted());
        assert_eq!(reuse.whole, Some(true));
        let merge = || {
            let mut thread = machine.enter().unwrap();
            // The last page is the one that stays.
            let pages = [(&*other, addr), (&*mm, addr)];
            machine.merge_same_pages(&mut thread.cx(), &pages)
        };
        assert_eq!(thread::scope(|s| s.spawn(merge).join().unwrap()), 1);
        let reused = seen.with_rights(vma.rights()).mkdirty();
        let decided = scope.with_leaf(at, |leaf| {
            decide(mem, leaf, at, (seen, reused), false, reuse)
        });
        assert!(matches!(decided, Ok(WriteDecision::Copy(Some(_)))));
        drop(decided);
        drop(g);
        mm.store(&mut cx, addr, 8).unwrap();
        assert_eq!(other.load(&mut cx, addr), Ok(7));
        mm.exit(&mut cx);
        other.exit(&mut cx);
    }

    /// An entry that was read before a huge page's mapping is split says nothing after it: another
    /// operation may move the page then.
    #[test]
    fn a_write_that_splits_a_huge_page_faults_again() {
        let machine = Machine::new(Default::default());
        let mut thread = machine.enter().unwrap();
        let mut cx = thread.cx();
        let mm = Mm::new(&machine);
        let args = MmapArgs::anonymous(SIZE).fixed(SIZE);
        mm.mmap(&mut cx, &args).unwrap();
        mm.madvise(&mut cx, SIZE, SIZE, Advice::HugePage).unwrap();
        mm.store(&mut cx, SIZE, 7).unwrap();
        let child = mm.fork(&mut cx).unwrap();
        let at = Vpn::containing(SIZE);
        let mut fault = || {
            let mut g = mm.lock_shared(&mut cx);
            let mut scope = FaultScope::of(&mut g);
            let vma = scope.layout.vmas.get(at).unwrap();
            scope.fault(vma, at, Access::Write).unwrap();
            let seen = scope.look_at_leaf(at).unwrap();
            (seen.is_huge, seen.pte.counted(), seen.pte.may_write())
        };
        let (first, second) = (fault(), fault());
        assert_eq!((first.0, first.2), (false, false), "it is split, no more");
        assert!(second.2 && second.1 != first.1, "and then copied");
        child.exit(&mut cx);
        mm.exit(&mut cx);
    }
}
