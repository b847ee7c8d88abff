//! `fork`: the child's VMAs, and the entries of those that have pages of their own.
//!
//! Tables are copied only for VMAs with an anon_vma or guard markers (`vma_needs_copy`): what comes from an object is left to fault
//! in again. Each private VMA that is copied is write-protected in the parent inside one window over all of it. With
//! [`ForkMode::Share`] a leaf is not copied before somebody wants it.

pub(in crate::mm) mod shared;

use super::fork::shared::ForkMode;
use crate::ctx::CallCx;

use crate::mm::{
    entry::{flags::VmFlags, pte::RawPte},
    fault::huge,
    guard::{Lease, MmapWriteGuard},
    page_table::{LeafAt, LockedLeaf, Pin, count_copies},
    space::Mm,
    vma::{Vma, layout::Layout},
    window::PteTxn,
};
use crate::{
    addr::{PUD_PAGES, VpnRange},
    ctx::{Cx, Rank, Sleepable, rank},
    error::{ForkError, NoMemory},
    frame::{AllocKind, FrameFlags, PhysMem},
    notifier::Event,
    rmap::{AnonLink, RmapTarget},
};
use std::sync::{Arc, Weak};

impl Mm {
    /// A child with the same memory, copied on write. External MMUs stay with the parent.
    ///
    /// # Errors
    ///
    /// [`ForkError`]: no child exists then, and every count is as it was.
    pub fn fork(&self, cx: &mut CallCx<'_>) -> Result<Arc<Self>, ForkError> {
        self.fork_with(cx, self.machine().config().fork)
    }
    /// The same in another way than the machine's.
    ///
    /// # Errors
    ///
    /// As [`fork`](Self::fork).
    pub fn fork_with(&self, cx: &mut CallCx<'_>, mode: ForkMode) -> Result<Arc<Self>, ForkError> {
        let mut g = self.lock_exclusive(cx);
        let child = Self::build(self.machine(), |space| g.layout.for_child(space));
        // Nobody can wait for this lock: reverse maps lead to the child, but only to its page table.
        let mut layout = child.layout.write();
        let copied = g.copy_vmas(&child, &mut layout, mode);
        // What the child shares nobody writes to any more.
        self.machine().host().settle_exports(&mut g.cx);
        copied?;
        drop(layout);
        if mode == ForkMode::Share {
            self.list_as_forked();
            child.list_as_forked();
        }
        // A child that failed half-way gives back exactly what it got when it is dropped.
        Ok(child)
    }
}

impl Layout {
    /// An empty layout with the settings a child inherits; locks are not among them.
    fn for_child(&self, space: Weak<dyn RmapTarget>) -> Self {
        let mut child = Self::new(&self.machine, space);
        child.start_brk = self.start_brk;
        child.brk = self.brk;
        child.start_stack = self.start_stack;
        child.limits = self.limits;
        // `ksm_fork`.
        child.merge_all = self.merge_all;
        child.merge_turn = self.merge_turn.map(|_| self.machine.merge_turns.next());
        child.remap_mode = self.remap_mode;
        child.mmap_base = self.mmap_base;
        child
    }
    /// The child's copy of a VMA (`dup_mmap`).
    fn child_vma(&self, vma: &Vma) -> Result<Vma, NoMemory> {
        let inject = self.machine.mem().inject();
        inject.check(AllocKind::Vma).map_err(|_| NoMemory::Vma)?;
        let flags = vma.flags - VmFlags::LOCK_MASK;
        let mut copy = Vma::new(vma.range(), vma.pgoff, flags, vma.file.clone());
        copy.label.clone_from(&vma.label);
        if !flags.contains(VmFlags::WIPEONFORK)
            && let Some(link) = vma.anon.get()
        {
            inject
                .check(AllocKind::AnonVma)
                .map_err(|_| NoMemory::AnonVma)?;
            let _fresh = copy.anon.set(AnonLink::fork(link));
        }
        Ok(copy)
    }
}

impl MmapWriteGuard<'_> {
    fn copy_vmas(&mut self, child: &Mm, to: &mut Layout, mode: ForkMode) -> Result<(), ForkError> {
        let mm = self.mm;
        let from = &*self.layout;
        for vma in from.vmas.iter() {
            if vma.flags.contains(VmFlags::DONTCOPY) {
                continue;
            }
            let accounted = vma.flags.contains(VmFlags::ACCOUNT);
            if accounted {
                from.charge(vma.pages())?;
            }
            let mut copy = from.child_vma(vma).inspect_err(|_| {
                if accounted {
                    from.uncharge(vma.pages());
                }
            })?;
            to.account(copy.flags, copy.pages());
            let has_pages = copy.anon.get().is_some()
                || copy.flags.contains(VmFlags::NONLINEAR)
                || (copy.flags & (VmFlags::MAYBE_GUARD | VmFlags::WIPEONFORK)
                    == VmFlags::MAYBE_GUARD);
            copy.follow_parent(vma, &to.space);
            to.insert(copy);
            if has_pages {
                let alone = (mode == ForkMode::Share)
                    .then(|| from.shares_tables(vma))
                    .flatten();
                let lease = Lease {
                    mm,
                    cx: self.cx.reborrow(),
                };
                copy_range(lease, child, vma, alone)?;
            }
        }
        Ok(())
    }
}

/// `copy_page_range`: a private VMA inside a window, since its entries lose the right to write. `alone`: where leaves may
/// be shared.
fn copy_range(
    mut lease: Lease<'_, rank::Mmap, Sleepable>,
    child: &Mm,
    vma: &Vma,
    alone: Option<VpnRange>,
) -> Result<(), NoMemory> {
    let range = vma.range();
    let parent = lease.mm;
    let mem = parent.machine().mem();
    if vma.flags.is_cow() {
        let mut window = lease.window(range, Event::ProtectionPage);
        copy_upper(parent, child, &mut window.cx(), range)?;
        let shared = |part: VpnRange, leaf: LeafAt<'_>, pin: Pin<'_>| match alone {
            Some(alone) if alone.covers(huge::block(part.start())) => {
                if mem.has_exported() && has_exported(mem, part, leaf) {
                    return Ok(false); // Looked at entry by entry.
                }
                child.table.share(part.start(), leaf, pin)
            }
            _ => Ok(false),
        };
        return window.leaves_or(range, shared, |txn| {
            let is_huge = txn.leaf().is_huge();
            if is_huge && !vma.is_anonymous() {
                return Ok(()); // The object's: left to fault in again.
            }
            copy_leaf(child, txn.pin(), txn.range(), is_huge, |to| {
                txn.share_into(to)
            })
        });
    }
    copy_upper(parent, child, &mut lease.cx, range)?;
    let pinned = lease.cx.pin();
    let pin = parent.table.pin(pinned.guard());
    parent.table.leaves(range, pin, |part, leaf| {
        let Some(from) = leaf.lock() else {
            return Ok(());
        };
        if from.is_huge() {
            return Ok(()); // The object's: left to fault in again.
        }
        copy_leaf(child, pin, part, false, |to| {
            from.copy_to(to, part, |pte| (pte, share_shared(mem, pte)));
        })
    })
}

fn has_exported(mem: &PhysMem, part: VpnRange, leaf: LeafAt<'_>) -> bool {
    let mut any = false;
    leaf.peek_each(part, |_, pte| {
        let exported = |pfn| mem.flags(pfn).contains(FrameFlags::EXPORTED);
        any |= pte.counted().is_some_and(exported);
    });
    any
}

/// The child gets a table of 2-MiB entries wherever the parent has one, also an empty one.
fn copy_upper<R: Rank>(
    parent: &Mm,
    child: &Mm,
    cx: &mut Cx<'_, R, Sleepable>,
    range: VpnRange,
) -> Result<(), NoMemory> {
    let pinned = cx.pin();
    let pin = parent.table.pin(pinned.guard());
    let mut rest = Some(range);
    while let Some(at) = rest.and_then(|r| parent.table.first_pmd(r, pin)) {
        child.table.make_pmd(at, pin)?;
        rest = VpnRange::new(at.align_down(PUD_PAGES).plus(PUD_PAGES), range.end());
    }
    Ok(())
}

/// Makes the child's leaf and runs `copy` on it.
fn copy_leaf(
    child: &Mm,
    pin: Pin<'_>,
    part: VpnRange,
    huge: bool,
    copy: impl FnOnce(&LockedLeaf<'_>),
) -> Result<(), NoMemory> {
    // Held beside the parent's, whatever their addresses are. Only walks over reverse maps know the child by now, and
    // they lock one leaf at a time.
    let to = loop {
        if let Some(to) = child.table.make_leaf(part.start(), pin)?.lock() {
            break to;
        }
    };
    copy(&to);
    if huge {
        to.set_huge(true);
    }
    Ok(())
}

impl PteTxn<'_> {
    /// What is mapped privately here is the child's as well from now on.
    fn share_into(&mut self, to: &LockedLeaf<'_>) {
        let mem = self.mem();
        let (leaf, range) = (self.leaf(), self.range());
        if !mem.has_exported() {
            return leaf.copy_to(to, range, |pte| share_private(mem, pte));
        }
        leaf.copy_to(to, range, |pte| {
            if let Some(pfn) = pte.counted() {
                mem.lose_write(pfn);
            }
            share_private(mem, pte)
        });
    }
}

/// Neither parent nor child may write to a private page from here on: the entries of both.
#[inline]
fn share_private(mem: &PhysMem, pte: RawPte) -> (RawPte, RawPte) {
    count_copies(mem, pte, 1);
    let kept = pte.forked();
    (kept, kept.inherited())
}

/// A page of an object is shared as it is.
fn share_shared(mem: &PhysMem, pte: RawPte) -> RawPte {
    match pte.counted() {
        Some(pfn) => {
            mem.share(pfn);
            pte.mkclean().mkold()
        }
        None => pte,
    }
}
