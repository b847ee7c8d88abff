//! Page faults: an empty entry is filled, a read-only one is made writable. `handle_mm_fault`.
//!
//! Filling and upgrading need no window. Copy-on-write, which puts another frame in the place of one that may be in
//! use outside, is in [`cow`](super::cow).

use super::{
    Mm,
    flags::VmFlags,
    guard::Held,
    page_table::LockedLeaf,
    pte::{RawPte, Rights},
    vma::Vma,
};
use crate::{
    addr::{PMD_PAGES, Vpn, VpnRange},
    ctx::{Cx, Sleepable, rank},
    error::{FaultError, NoMemory},
    frame::{Frame, FrameFlags},
    notifier::Access,
};

/// What a frame of private anonymous memory is born as.
const NEW_ANON: FrameFlags = FrameFlags::ANON
    .union(FrameFlags::ANON_EXCLUSIVE)
    .union(FrameFlags::SWAP_BACKED);

impl Vma {
    /// The rights of an entry that this VMA alone decides about; writable only where the VMA is.
    pub(super) fn rights(&self) -> Rights {
        Rights {
            // x86 has no write-only and no execute-only page.
            read: self.flags.accessible(),
            write: self.flags.contains(VmFlags::WRITE),
        }
    }
    fn read_only(&self) -> Rights {
        Rights {
            write: false,
            ..self.rights()
        }
    }
    /// The rights of an entry that maps the object's own page: a private mapping must copy before it writes.
    fn mapped_rights(&self) -> Rights {
        if self.flags.contains(VmFlags::SHARED) {
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

impl Held<'_> {
    /// Makes the page at `at` of `vma`, which allows it, present for the access. Returns after one step; an access
    /// that still does not go through faults again.
    pub(super) fn fault(&mut self, vma: &Vma, at: Vpn, access: Access) -> Result<(), FaultError> {
        match self.look(at)? {
            pte if pte.is_none() => match &vma.object {
                None => self.fault_anonymous(vma, at, access),
                Some(_) => self.fault_object(vma, at, access),
            },
            pte if pte.is_guard() => Err(FaultError::Guarded(at.addr())),
            pte if access == Access::Write && !pte.may_write() => {
                self.fault_protected(vma, at, pte)
            }
            // Another thread was first.
            _ => Ok(()),
        }
    }
    /// The entry of `at`; makes the upper tables, which a fault leaves behind even if it fails.
    fn look(&mut self, at: Vpn) -> Result<RawPte, NoMemory> {
        let mm = self.lease.mm;
        let pinned = self.lease.cx.pin();
        let pin = mm.table.pin(pinned.guard());
        mm.table.make_pmd(at, pin)?;
        Ok(mm
            .table
            .leaf(at, pin)
            .map_or(RawPte::NONE, |leaf| leaf.peek(at)))
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
    fn fault_anonymous(&mut self, vma: &Vma, at: Vpn, access: Access) -> Result<(), FaultError> {
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
        self.with_leaf(at, |_| ())?;
        self.layout.prepare_anon(vma.start())?;
        let frame = mem.alloc().map_err(|_| NoMemory::Frame)?;
        mem.set_flags(frame.pfn(), NEW_ANON);
        let pte = RawPte::frame(frame.pfn(), vma.rights()).mkdirty();
        self.install(at, frame, pte)?;
        Ok(())
    }

    /// Puts a frame into the entry if that is still empty; else the frame is given back.
    fn install(&mut self, at: Vpn, frame: Frame<'_>, pte: RawPte) -> Result<(), NoMemory> {
        let mem = self.lease.mm.machine().mem();
        self.with_leaf(at, |leaf| {
            if leaf.get(at).is_none() {
                mem.map_inc(frame.into_raw());
                leaf.set(at, pte);
            }
        })
    }

    /// `do_fault`: read, private write, shared write. Whether the object has the page at all is asked last, as on Linux:
    /// a fault that ends in SIGBUS leaves behind what came before.
    fn fault_object(&mut self, vma: &Vma, at: Vpn, access: Access) -> Result<(), FaultError> {
        let object = vma.object.as_ref().expect("the caller checked");
        let mem = self.lease.mm.machine().mem();
        let page = || {
            let index = vma.pgoff_at(at);
            if index < object.pages() {
                Ok(object.page(mem, index)?)
            } else {
                Err(FaultError::Beyond(at.addr()))
            }
        };
        let shared = vma.flags.contains(VmFlags::SHARED);
        let (frame, pte) = match access {
            Access::Read => {
                if self.fault_around(vma, at)? {
                    return Ok(());
                }
                let frame = page()?;
                let pte = RawPte::frame(frame.pfn(), vma.mapped_rights());
                (frame, pte)
            }
            Access::Write if shared => {
                let frame = page()?;
                let pte = RawPte::frame(frame.pfn(), vma.rights()).mkdirty();
                (frame, pte)
            }
            Access::Write => {
                self.layout.prepare_anon(vma.start())?;
                let copy = mem.alloc().map_err(|_| NoMemory::Frame)?;
                mem.copy(page()?.pfn(), copy.pfn());
                mem.set_flags(copy.pfn(), NEW_ANON);
                let pte = RawPte::frame(copy.pfn(), vma.rights()).mkdirty();
                (copy, pte)
            }
        };
        Ok(self.install(at, frame, pte)?)
    }

    /// `do_fault_around`: maps what the object has in memory in the aligned block around `at`, within the VMA and the
    /// leaf. Returns whether `at` is mapped now.
    fn fault_around(&mut self, vma: &Vma, at: Vpn) -> Result<bool, NoMemory> {
        let object = vma.object.as_ref().expect("the caller checked");
        let mem = self.lease.mm.machine().mem();
        let block = self.lease.mm.machine().config().fault_around;
        let from = at.align_down(block).max(vma.start());
        // The block starts at the VMA's start if that lies inside, and keeps its length.
        let to = from
            .plus(block)
            .min(at.align_down(PMD_PAGES).plus(PMD_PAGES))
            .min(vma.end());
        let around = VpnRange::new(from, to).expect("at lies inside");
        let resident = |page: Vpn| {
            let index = vma.pgoff_at(page);
            (index < object.pages()).then(|| object.resident(mem, index))?
        };
        let mut frames: Vec<(Vpn, Frame<'_>)> = Vec::new();
        frames.extend(around.iter().filter_map(|p| Some((p, resident(p)?))));
        if frames.is_empty() {
            return Ok(false);
        }
        let rights = vma.mapped_rights();
        self.with_leaf(at, |leaf| {
            for (page, frame) in frames {
                if leaf.get(page).is_none() {
                    let pte = RawPte::frame(frame.pfn(), rights);
                    mem.map_inc(frame.into_raw());
                    leaf.set(page, pte);
                }
            }
            !leaf.get(at).is_none()
        })
    }
}

/// Makes the leaf of `at` and runs `f` under its lock.
pub(super) fn with_leaf<T>(
    mm: &Mm,
    cx: &mut Cx<'_, rank::Mmap, Sleepable>,
    at: Vpn,
    f: impl FnOnce(&LockedLeaf<'_>) -> T,
) -> Result<T, NoMemory> {
    loop {
        let pinned = cx.pin();
        let leaf = mm.table.make_leaf(at, mm.table.pin(pinned.guard()))?;
        // Unlinked meanwhile by a large MADV_DONTNEED: walk again.
        if let Some(locked) = leaf.lock_linked() {
            return Ok(f(&locked));
        }
    }
}
