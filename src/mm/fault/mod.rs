//! Page faults: an empty entry is filled, a read-only one is made writable. `handle_mm_fault`.
//!
//! Filling and upgrading need no window. Copy-on-write, which puts another frame in the place of one that may be in
//! use outside, is in [`cow`](super::fault::cow).

pub(in crate::mm) mod access;
pub(in crate::mm) mod cow;
pub(in crate::mm) mod deferred;
pub(in crate::mm) mod file;
pub(in crate::mm) mod folio;
pub(in crate::mm) mod huge;
pub(in crate::mm) mod nonlinear;
pub(in crate::mm) mod patience;
pub(in crate::mm) mod populate;
pub(in crate::mm) mod swap;

use super::{
    entry::{
        flags::VmFlags,
        pte::{RawPte, Rights},
    },
    guard::FaultScope,
    page_table::LockedLeaf,
    space::Mm,
    vma::Vma,
};
use crate::ctx::FaultCx;

use crate::{
    addr::Vpn,
    error::{FaultError, NoMemory},
    frame::{Frame, FrameFlags},
    notifier::Access,
};

/// What every frame of private anonymous memory is born as.
const NEW_ANON: FrameFlags = FrameFlags::ANON.union(FrameFlags::ANON_EXCLUSIVE);

impl Vma {
    /// The rights of an entry that this VMA alone decides about; writable only where the VMA is.
    pub(super) fn rights(&self) -> Rights {
        Rights {
            // x86 has no write-only and no execute-only page.
            read: self.flags.accessible(),
            write: self.flags.contains(VmFlags::WRITE),
        }
    }
    /// What a frame for private memory of this VMA is born as (`folio_add_new_anon_rmap`): what may be dropped never
    /// goes to swap.
    pub(super) fn new_anon(&self) -> FrameFlags {
        let mut init_allocated = NEW_ANON;
        init_allocated.set(
            FrameFlags::SWAP_BACKED,
            !self.flags.contains(VmFlags::DROPPABLE),
        );
        init_allocated.set(
            FrameFlags::UNEVICTABLE,
            self.flags.contains(VmFlags::LOCKED),
        );
        init_allocated
    }
    pub(super) fn read_only(&self) -> Rights {
        Rights {
            write: false,
            ..self.rights()
        }
    }
    /// A shared mapping whose object must know of the first write to a clean page (`vma_wants_writenotify`).
    pub(super) fn notes_writes(&self) -> bool {
        self.flags.contains(VmFlags::SHARED) && self.object().is_some_and(|o| o.notes_writes())
    }
    /// The rights of an entry that maps the object's own page before it is written: a private mapping must copy
    /// first, and some objects must be told.
    pub(super) fn mapped_rights(&self) -> Rights {
        if self.flags.contains(VmFlags::SHARED) && !self.notes_writes() {
            self.rights()
        } else {
            self.read_only()
        }
    }
    /// Whether the VMA allows the access at all (`access_error`).
    pub(super) fn allows(&self, access: Access) -> bool {
        match access {
            Access::Read => self.flags.accessible(),
            Access::Write => self.flags.contains(VmFlags::WRITE),
        }
    }
}

impl<'h> FaultScope<'h> {
    /// Makes the page at `at` of `vma`, which allows it, present for the access. Returns after one step; an access
    /// that still does not go through faults again.
    pub(super) fn fault(&mut self, vma: &Vma, at: Vpn, access: Access) -> Result<(), FaultError> {
        let (seen, has_leaf) = self.look_for_leaf(at)?;
        if seen.is_none() && self.fault_huge(vma, at, access)? {
            return Ok(());
        }
        match seen {
            pte if pte.is_none() => match &vma.file {
                None => self.fault_anonymous(vma, at, access, has_leaf),
                Some(file) => self.fault_file(vma, file.object().as_ref(), at, access),
            },
            pte if pte.is_guard() => Err(FaultError::Guarded(at.addr())),
            pte if pte.is_present() && access == Access::Write && !pte.may_write() => {
                self.fault_protected(vma, at, pte)
            }
            pte if let Some(index) = pte.file_index() => {
                let object = vma
                    .object()
                    .expect("only objects' pages have places")
                    .as_ref();
                self.fault_nonlinear(vma, object, (at, pte), index, access)
            }
            pte => match pte.swap_slot() {
                Some(slot) => self.fault_swapped(vma, at, access, pte, slot),
                // Another thread was first, or the page is on its way.
                None => {
                    self.wait_for_migration(pte);
                    Ok(())
                }
            },
        }
    }
    /// The entry of `at`; makes the upper tables, which a fault leaves behind even if it fails.
    pub(super) fn look(&mut self, at: Vpn) -> Result<RawPte, NoMemory> {
        Ok(self.look_for_leaf(at)?.0)
    }
    /// The same, and whether there is a leaf.
    fn look_for_leaf(&mut self, at: Vpn) -> Result<(RawPte, bool), NoMemory> {
        let mm = self.lease.mm;
        let pinned = self.lease.cx.pin();
        let pin = mm.table.pin(pinned.guard());
        if let Some(leaf) = mm.table.leaf(at, pin) {
            return Ok((leaf.peek(at), true));
        }
        mm.table.make_pmd(at, pin)?;
        let leaf = mm.table.leaf(at, pin);
        Ok(leaf.map_or((RawPte::NONE, false), |leaf| (leaf.peek(at), true)))
    }
    /// Makes the leaf of `at` and runs `f` under its lock.
    pub(super) fn with_leaf<T>(
        &mut self,
        at: Vpn,
        f: impl FnOnce(&LockedLeaf<'_>) -> T,
    ) -> Result<T, NoMemory> {
        with_leaf(self.lease.mm, &mut self.lease.cx, at, f)
    }

    /// `do_anonymous_page`: the zero page for a read, a frame of its own for a write.
    fn fault_anonymous(
        &mut self,
        vma: &Vma,
        at: Vpn,
        access: Access,
        has_leaf: bool,
    ) -> Result<(), FaultError> {
        let mem = self.lease.mm.machine().mem();
        if access == Access::Read {
            let zero = RawPte::zero(mem.zero_pfn(), vma.read_only());
            self.with_leaf(at, |leaf| {
                if leaf.get(at).is_none() {
                    leaf.set(at, zero);
                }
            })?;
            return Ok(());
        }
        // The table comes first, as on Linux: it stays if the frame cannot be had.
        if !has_leaf {
            self.with_leaf(at, |_| ())?;
        }
        let frame = self.new_anon(vma, at)?;
        let pte = RawPte::frame(frame.pfn(), vma.rights()).mkdirty();
        self.install(at, frame, pte)?;
        Ok(())
    }

    /// A frame for a private page of `vma` (`folio_prealloc`, `folio_add_new_anon_rmap`).
    pub(super) fn new_anon(&mut self, vma: &Vma, at: Vpn) -> Result<Frame<'h>, NoMemory> {
        let mem = self.lease.mm.machine().mem();
        let node = self.layout.anon_of(vma)?;
        let owner = node.owner(vma.pgoff_at(at));
        mem.alloc_as(vma.new_anon(), Some(owner))
            .map_err(|_| NoMemory::Frame)
    }
    /// Puts a frame into the entry if that is still empty; else the frame is given back.
    pub(super) fn install(
        &mut self,
        at: Vpn,
        frame: Frame<'_>,
        pte: RawPte,
    ) -> Result<(), NoMemory> {
        let mem = self.lease.mm.machine().mem();
        self.with_leaf(at, |leaf| {
            if leaf.get(at).is_none() {
                let pfn = frame.into_raw();
                mem.map_inc(pfn);
                leaf.set(at, pte);
                // An object's page is on a list already.
                if mem.flags(pfn).contains(FrameFlags::ANON) {
                    mem.lru_add(pfn);
                }
            }
        })
    }
}

/// Makes the leaf of `at` and runs `f` under its lock.
pub(super) fn with_leaf<T>(
    mm: &Mm,
    cx: &mut FaultCx<'_>,
    at: Vpn,
    f: impl FnOnce(&LockedLeaf<'_>) -> T,
) -> Result<T, NoMemory> {
    loop {
        let pinned = cx.pin();
        let leaf = mm.table.make_leaf(at, mm.table.pin(pinned.guard()))?;
        // Taken out meanwhile by a large MADV_DONTNEED: walk again.
        if let Some(locked) = leaf.try_lock()? {
            return Ok(f(&locked));
        }
    }
}
