//! `fork`: copies the VMAs, and the entries of those that have pages of their own.
//!
//! Tables are copied only for VMAs with an anonymous family or guard markers (`vma_needs_copy`);
//! pages of an object fault in again. Each private VMA that is copied is write-protected in the
//! parent in one window over all of it. With [`ForkMode::Share`] a leaf is copied at its first use
//! instead (ADR 0014).
//!
//! A VMA of the child enters the reverse maps before its entries are made, so no walk misses an
//! entry (ADR 0005).
//!
//! A private page that is pinned is copied for the child at once: the parent, and the holder of the
//! pin, keep the page (`copy_present_page`).
//!
//! | file | holds |
//! | --- | --- |
//! | `pinned` | pages that are copied at once |
//! | `shared` | forks that share leaf tables, and the counts that they leave behind |

mod pinned;
pub(in crate::mm) mod shared;

use super::userfault::events::ForkEvents;
use pinned::{PoolCopies, copy_page, map_copy, must_copy};

use crate::mm::{
    entry::{flags::VmFlags, pte::RawPte},
    guard::MmapWriteGuard,
    machine::ForkMode,
    page_table::{LeafAt, LockedLeaf, Pin, count_copies},
    space::Mm,
    vma::{Vma, layout::Layout},
    window::{Lease, PteTxn},
};
use crate::{
    addr::{PUD_PAGES, TASK_SIZE, VpnRange},
    ctx::{CallCx, Cx, Rank, Sleepable, rank},
    error::{ForkError, NoMemory},
    frame::{AllocKind, FrameFlags, PhysMem, PoolPage},
    notifier::{Event, Flusher},
    rmap::{AnonLink, RmapTarget},
    trace,
};
use std::sync::{Arc, Weak};

impl Mm {
    /// Makes a child with the same memory, copied on write. External MMUs stay with the parent.
    ///
    /// # Errors
    ///
    /// [`ForkError`]: no child exists then, and every count is as it was.
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::{Machine, MachineConfig, Mm, mm::MmapArgs};
    ///
    /// let machine = Machine::new(MachineConfig::default());
    /// let mut thread = machine.enter().unwrap();
    /// let mut cx = thread.cx();
    /// let parent = Mm::new(&machine);
    /// let addr = parent.mmap(&mut cx, &MmapArgs::anonymous(0x1000))?;
    /// parent.store(&mut cx, addr, 1)?;
    /// let child = parent.fork(&mut cx)?;
    /// parent.store(&mut cx, addr, 2)?; // Copies the page in a window.
    /// assert_eq!(child.load(&mut cx, addr), Ok(1));
    /// child.exit(&mut cx);
    /// parent.exit(&mut cx);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn fork(&self, cx: &mut CallCx<'_>) -> Result<Arc<Self>, ForkError> {
        self.fork_with(cx, self.machine().config().fork)
    }
    /// Forks in the given mode instead of the machine's; see [`fork`](Self::fork).
    ///
    /// # Errors
    ///
    /// Like [`fork`](Self::fork).
    pub fn fork_with(&self, cx: &mut CallCx<'_>, mode: ForkMode) -> Result<Arc<Self>, ForkError> {
        let _call = trace::call("fork", 0, TASK_SIZE);
        let mut g = self.lock_exclusive(cx);
        let child = Self::build(self.machine(), |space| g.layout.for_child(space));
        // No thread can be waiting for this lock: reverse maps lead to the child, but only to its
        // table.
        let mut layout = child.layout.write();
        let mut told = ForkEvents::default();
        let copied = g.copy_vmas(&child, &mut layout, (mode, &mut told));
        // The shared pages are write-protected now: drivers that have exported frames among them
        // are called.
        self.machine().host().settle_exports(&mut g.cx);
        copied?;
        drop(layout);
        told.send();
        if mode == ForkMode::Share {
            self.machine.forks.register(&self.fork_member);
            child.machine.forks.register(&child.fork_member);
        }
        // A child that failed half-way gives back exactly the memory that it got, when it is
        // dropped.
        Ok(child)
    }
}

impl Layout {
    /// Makes an empty layout with the settings that a child inherits; locks of memory are not among
    /// them.
    fn for_child(&self, space: Weak<dyn RmapTarget>) -> Self {
        let mut child = Self::new(&self.machine, space);
        child.start_brk = self.start_brk;
        child.brk = self.brk;
        child.start_stack = self.start_stack;
        child.limits = self.limits;
        // `ksm_fork`.
        child.merge_all = self.merge_all;
        child.merge_turn = self.merge_turn.map(|_| self.machine.merge_turns.next());
        child.thp = self.thp;
        child.remap_mode = self.remap_mode;
        child.mmap_base = self.mmap_base;
        child
    }
    /// Makes the child's copy of a VMA (`dup_mmap`).
    fn child_vma(&self, vma: &Vma) -> Result<Vma, NoMemory> {
        let inject = self.machine.mem().inject();
        inject.check(AllocKind::Vma).map_err(|_| NoMemory::Vma)?;
        let flags = vma.flags - VmFlags::LOCK_MASK;
        let mut copy = Vma::new(vma.range(), vma.pgoff, flags, vma.file.clone());
        copy.extras = vma.extras.clone();
        if !flags.contains(VmFlags::WIPEONFORK)
            && let Some(link) = vma.anon.get()
        {
            inject
                .check(AllocKind::AnonVma)
                .map_err(|_| NoMemory::AnonVma)?;
            let _fresh = copy.anon.set(Box::new(AnonLink::fork(link)));
        }
        Ok(copy)
    }
}

impl MmapWriteGuard<'_> {
    fn copy_vmas(
        &mut self,
        child: &Mm,
        to: &mut Layout,
        (mode, told): (ForkMode, &mut ForkEvents),
    ) -> Result<(), ForkError> {
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
            told.inherit(vma, &mut copy, child);
            to.account(copy.flags, copy.pages());
            let has_pages = copy.anon.get().is_some()
                || copy.flags.intersects(VmFlags::NONLINEAR | VmFlags::UFFD_WP)
                || (copy.flags & (VmFlags::MAYBE_GUARD | VmFlags::WIPEONFORK)
                    == VmFlags::MAYBE_GUARD);
            copy.follow_parent(vma, &to.space);
            to.insert(copy);
            if has_pages {
                let copy = to.vmas.get(vma.start()).expect("it was inserted");
                let alone = (mode == ForkMode::Share && vma.userfault().is_none())
                    .then(|| from.shares_tables(vma))
                    .flatten();
                let lease = Lease {
                    mm,
                    cx: self.cx.reborrow(),
                };
                copy_range(lease, (child, copy), vma, alone)?;
            }
        }
        Ok(())
    }
}

/// Copies the entries of a VMA (`copy_page_range`); of a private VMA in a window, since its entries
/// lose the right to write. The leaves in `alone` hold nothing but this VMA, so they may be shared.
fn copy_range(
    mut lease: Lease<'_, rank::Mmap, Sleepable>,
    (child, copy): (&Mm, &Vma),
    vma: &Vma,
    alone: Option<VpnRange>,
) -> Result<(), NoMemory> {
    let range = vma.range();
    let parent = lease.mm;
    let mem = parent.machine().mem();
    if vma.flags.is_cow() {
        let mut window = lease.window(range, Event::ProtectionPage);
        copy_upper(parent, child, &mut window.cx(), range)?;
        let pooled = vma.flags.contains(VmFlags::HUGETLB);
        let mut copies = PoolCopies::new();
        if mem.has_pinned() && pooled {
            copies = window.copy_pooled(vma, copy)?;
        } else if mem.has_pinned() {
            window.split_pinned(range);
        }
        let shared = |part: VpnRange, leaf: LeafAt<'_>, pin: Pin<'_>, _: Flusher<'_>| match alone {
            Some(alone) if alone.covers(VpnRange::block_of(part.start())) => {
                if needs_look(mem, part, leaf) {
                    return Ok(false);
                }
                child.table.share(part.start(), leaf, pin)
            }
            _ => Ok(false),
        };
        window.leaves_or(range, shared, |txn| {
            let is_huge = txn.leaf().is_huge();
            if is_huge && !vma.is_anonymous() && !pooled {
                return Ok(()); // The child faults the object's page in again.
            }
            let old = txn.leaf().get(txn.range().start());
            copy_leaf(child, txn.pin(), txn.range(), is_huge, |to| {
                let copied = map_copy(mem, (&copies, copy), (to, old), txn.range());
                if copied {
                    Ok(())
                } else {
                    txn.share_into(to, copy)
                }
            })?
        })?;
        copies.into_values().for_each(PoolPage::leave);
        window.close();
        child.note_copied(&mut lease.cx.descend(), range);
        return Ok(());
    }
    copy_shared(lease, child, (range, copy))
}

/// Copies the entries of a VMA that is not private.
fn copy_shared(
    mut lease: Lease<'_, rank::Mmap, Sleepable>,
    child: &Mm,
    (range, copy): (VpnRange, &Vma),
) -> Result<(), NoMemory> {
    let parent = lease.mm;
    let mem = parent.machine().mem();
    copy_upper(parent, child, &mut lease.cx, range)?;
    let view = parent.table.view(&mut lease.cx);
    view.leaves(range, |part, leaf| {
        let Some(from) = leaf.lock() else {
            return Ok(());
        };
        let is_huge = from.is_huge();
        if is_huge && !copy.flags.contains(VmFlags::HUGETLB) {
            return Ok(()); // A page of the object: it faults in again.
        }
        copy_leaf(child, view.pin(), part, is_huge, |to| {
            let protected = copy.is_uffd_wp();
            from.copy_to(to, part, |pte| (pte, share_shared(mem, pte, protected)));
        })
    })
}

/// Returns true if a page of the leaf is exported, pinned, or part of a huge page, whose mappings
/// are counted by address space: each entry needs a look then.
fn needs_look(mem: &PhysMem, part: VpnRange, leaf: LeafAt<'_>) -> bool {
    let mut any = false;
    if mem.has_exported() || mem.has_pinned() || mem.has_large() {
        let kinds = FrameFlags::EXPORTED | FrameFlags::LARGE;
        leaf.peek_each(part, |_, pte| {
            let is_of_kind = |pfn| mem.flags(pfn).intersects(kinds);
            any |= pte
                .mapped()
                .is_some_and(|pfn| is_of_kind(pfn) || mem.is_pinned(pfn));
        });
    }
    any
}

/// Makes a table of 2-MiB entries in the child for each that the parent has, also for an empty one.
fn copy_upper<R: Rank>(
    parent: &Mm,
    child: &Mm,
    cx: &mut Cx<'_, R, Sleepable>,
    range: VpnRange,
) -> Result<(), NoMemory> {
    let view = parent.table.view(cx);
    let mut rest = Some(range);
    while let Some(at) = rest.and_then(|r| view.first_pmd(r)) {
        child.table.make_pmd(at, view.pin())?;
        rest = VpnRange::new(at.align_down(PUD_PAGES).plus(PUD_PAGES), range.end());
    }
    Ok(())
}

/// Makes the child's leaf and runs `copy` on it.
fn copy_leaf<T>(
    child: &Mm,
    pin: Pin<'_>,
    part: VpnRange,
    huge: bool,
    copy: impl FnOnce(&LockedLeaf<'_>) -> T,
) -> Result<T, NoMemory> {
    // The child's leaf is locked while the parent's is, whatever their addresses are. That cannot
    // deadlock: only walks over reverse maps know the child by now, and they lock one leaf at a
    // time.
    let to = loop {
        if let Some(to) = child.table.make_leaf(part.start(), pin)?.lock() {
            break to;
        }
    };
    let copied = copy(&to);
    if huge {
        to.set_huge(true);
    }
    Ok(copied)
}

impl PteTxn<'_> {
    /// Copies the private entries of this leaf to the child, in whose VMA `copy` they are.
    fn share_into(&mut self, to: &LockedLeaf<'_>, copy: &Vma) -> Result<(), NoMemory> {
        let mem = self.mem();
        let protected = copy.is_uffd_wp();
        let (leaf, range) = (self.leaf(), self.range());
        if !mem.has_exported() && !mem.has_pinned() {
            leaf.copy_to(to, range, |pte| share_private(mem, pte, protected));
            return Ok(());
        }
        let mut out = Ok(());
        leaf.copy_to(to, range, |pte| {
            let pte = pte.unexclusive();
            let pinned = pte.counted().filter(|&pfn| must_copy(mem, pfn));
            if let Some(pfn) = pinned {
                let made = out.and_then(|()| copy_page(mem, copy, pfn));
                out = made.map(|_| ());
                let made = made.unwrap_or(RawPte::NONE);
                return match protected {
                    true => (pte, made.in_place_of(pte)),
                    false => (pte, made),
                };
            }
            if let Some(pfn) = pte.counted() {
                mem.lose_write(pfn);
            }
            share_private(mem, pte, protected)
        });
        out
    }
}

/// Returns the entries of parent and child for a private page, to which neither may write from now
/// on.
#[inline]
fn share_private(mem: &PhysMem, pte: RawPte, protected: bool) -> (RawPte, RawPte) {
    count_copies(mem, pte, 1);
    let kept = pte.forked();
    match protected {
        true => (kept, kept.inherited_protected()),
        false => (kept, kept.inherited()),
    }
}

/// Shares a page of an object as it is.
fn share_shared(mem: &PhysMem, pte: RawPte, protected: bool) -> RawPte {
    let pte = match protected {
        true => pte,
        false => pte.clear_uffd_wp(),
    };
    match pte.counted() {
        Some(pfn) => {
            mem.share(pfn);
            pte.mkclean().mkold()
        }
        None => pte,
    }
}
