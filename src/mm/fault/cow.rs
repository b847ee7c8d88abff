//! Copy-on-write: here, and nowhere else, is decided whether a write to a read-only entry copies (`do_wp_page`).
//!
//! * shared memory: the entry becomes writable;
//! * a private frame that nobody else can see (marked exclusive, or its one reference is this entry's): it is reused
//!   in place, without a window, since nothing becomes wrong that an external MMU may hold;
//! * all else, the zero page included: a copy takes its place, in a window over the one page.

use super::deferred::WindowWork;
use crate::mm::{
    entry::{flags::VmFlags, pte::RawPte},
    guard::FaultScope,
    page_table::LockedLeaf,
    reverse::merge_same_pages::is_merged,
    vma::Vma,
};
use crate::{
    addr::{Pfn, Vpn},
    error::FaultError,
    frame::{Frame, FrameFlags, Owner, PhysMem},
    notifier::Access,
};

/// What is to be known of a private page that may be written in place.
#[derive(Clone, Copy)]
struct Reuse {
    /// It is part of a huge page, and whether all of that is this process's.
    whole: Option<bool>,
    /// Where a page of this VMA belongs that nobody else has.
    home: Option<Owner>,
}

/// What a write to a present, read-only entry comes to.
enum Verdict<'m> {
    /// Done: the entry is writable, or changed under our feet.
    Done,
    /// Copy; of the zero page nothing.
    Copy(Option<Frame<'m>>),
}

impl FaultScope<'_> {
    /// A write met the read-only entry `seen`.
    pub(in crate::mm) fn fault_protected(
        &mut self,
        vma: &Vma,
        at: Vpn,
        seen: RawPte,
    ) -> Result<(), FaultError> {
        let mem = self.lease.mm.machine().mem();
        let shared = vma.flags.contains(VmFlags::SHARED);
        let huge = self.lease.mm.is_huge(&mut self.lease.cx, at);
        if huge && self.fault_huge_protected(vma, at)? {
            return Ok(());
        }
        let seen = if huge { self.look(at)? } else { seen };
        if seen.is_none() {
            return Ok(()); // An object's: its mapping went as a whole, and the page is faulted in again.
        }
        if vma.notes_writes() {
            return self.announce_write(vma, at, seen);
        }
        let reuse = self.reuse(vma, at, seen.counted().filter(|_| !shared));
        let reused = seen.with_rights(vma.rights()).mkdirty();
        let decide = |leaf: &LockedLeaf<'_>| decide(mem, leaf, at, (seen, reused), shared, reuse);
        match self.with_leaf(at, decide)? {
            Verdict::Done => Ok(()),
            Verdict::Copy(original) => self.copy(vma, at, seen, original, |copy| {
                RawPte::frame(copy, vma.rights()).mkdirty()
            }),
        }
    }

    /// What has to be known before a private page at `at` is written in place.
    fn reuse(&mut self, vma: &Vma, at: Vpn, page: Option<Pfn>) -> Reuse {
        let mem = self.lease.mm.machine().mem();
        let large = page.filter(|&pfn| mem.flags(pfn).contains(FrameFlags::LARGE));
        Reuse {
            whole: large.map(|pfn| self.has_all_of(pfn.head())),
            home: vma.anon_node().map(|node| node.owner(vma.pgoff_at(at))),
        }
    }

    /// Somebody else is to read the page behind the entry `seen` and keep it: it becomes this entry's alone, by a copy if
    /// it must, and stays read-only (`FAULT_FLAG_UNSHARE`). Of a huge page that is not this process's alone the mapping is
    /// split, and the page is looked at again.
    pub(in crate::mm) fn unshare(
        &mut self,
        vma: &Vma,
        at: Vpn,
        seen: RawPte,
    ) -> Result<(), FaultError> {
        let mem = self.lease.mm.machine().mem();
        if self.lease.mm.is_huge(&mut self.lease.cx, at) {
            return self.unshare_huge(at);
        }
        let reuse = self.reuse(vma, at, seen.counted());
        let original = self.with_leaf(at, |leaf| {
            let pfn = seen.counted().filter(|_| leaf.get(at) == seen)?;
            (!may_reuse(mem, pfn, reuse)).then(|| mem.get(pfn))
        })?;
        match original {
            Some(original) => self.copy(vma, at, seen, Some(original), |copy| {
                RawPte::frame(copy, vma.read_only())
            }),
            None => Ok(()),
        }
    }

    /// `__wp_can_reuse_large_anon_folio`: more than one page of it is mapped, all by this process, and nobody else holds
    /// one. Of a last page it is better to copy, so that the huge page goes.
    fn has_all_of(&mut self, head: Pfn) -> bool {
        let mm = self.lease.mm;
        let mem = mm.machine().mem();
        let mapped = mem.huge_mappings(head);
        let held: u64 = mem
            .huge_parts(head)
            .map(|p| u64::from(mem.refcount(p)))
            .sum();
        mapped > 1 && held == mapped && mm.has_alone(&mut self.lease.cx.descend(), head)
    }

    /// `wp_page_shared`: the object hears of the write first. It may have put another page in the place of this one,
    /// which then is mapped no more: the access faults again.
    fn announce_write(&mut self, vma: &Vma, at: Vpn, seen: RawPte) -> Result<(), FaultError> {
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

    /// `wp_page_copy`: everything that can fail comes before the window.
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

/// Decides under the page-table lock; takes a reference on what is to be copied, so that it stays until it is.
fn decide<'m>(
    mem: &'m PhysMem,
    leaf: &LockedLeaf<'_>,
    at: Vpn,
    (seen, reused): (RawPte, RawPte),
    shared: bool,
    reuse: Reuse,
) -> Verdict<'m> {
    if leaf.get(at) != seen {
        return Verdict::Done;
    }
    let Some(pfn) = seen.counted() else {
        return Verdict::Copy(None);
    };
    if shared || may_reuse(mem, pfn, reuse) {
        leaf.set(at, reused);
        return Verdict::Done;
    }
    Verdict::Copy(Some(mem.get(pfn)))
}

/// `wp_can_reuse_anon_folio`: nobody else maps or holds the frame. Then it is this VMA's alone, and reverse maps look for it
/// nowhere else (`folio_move_anon_rmap`). A merged one is nobody's own.
fn may_reuse(mem: &PhysMem, pfn: Pfn, reuse: Reuse) -> bool {
    let flags = mem.flags(pfn);
    if !flags.contains(FrameFlags::ANON) || is_merged(mem, pfn) {
        return false;
    }
    if flags.contains(FrameFlags::ANON_EXCLUSIVE) {
        return true;
    }
    // Part of a huge page: what counts is all of it.
    if let Some(whole) = reuse.whole {
        if whole {
            mem.set_flags(pfn, FrameFlags::ANON_EXCLUSIVE);
        }
        return whole;
    }
    let cached = flags.contains(FrameFlags::SWAP_CACHE);
    if mem.refcount(pfn) > 1 + u32::from(cached) {
        return false;
    }
    // Somebody is at work on it: that may be over after the copy.
    let Ok(locked) = mem.try_lock(mem.get(pfn)) else {
        return false;
    };
    // The cache's reference goes if no entry refers to the slot.
    if cached && !mem.swap_cache_drop(&locked) {
        return false;
    }
    // This entry's reference, and the lock's.
    if mem.refcount(pfn) != 2 {
        return false;
    }
    mem.set_flags(pfn, FrameFlags::ANON_EXCLUSIVE);
    if let Some(home) = reuse.home {
        mem.set_owner(pfn, Some(home));
    }
    true
}
