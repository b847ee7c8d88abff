//! Changes of the rights of entries (`change_protection`): for `mprotect`, and for the write
//! protection of userfaultfd.
//!
//! In each 512-GiB block one window opens, from the first GiB with a table to the end.

use crate::mm::{
    entry::{
        flags::VmFlags,
        pte::{RawPte, Rights},
    },
    space::Mm,
    vma::{
        Vma,
        hugetlb::{TableSharing, with_shared_tables},
    },
    window::{InvalidationWindow, Lease, PteSlot, PteTxn},
};
use crate::{
    addr::{PGD_PAGES, PMD_PAGES, VpnRange},
    ctx::{Cx, Rank, Sleepable, rank},
    error::NoMemory,
    frame::FrameFlags,
    notifier::Event,
};
use smallvec::SmallVec;

/// The effect of a write to a page of the VMA.
#[derive(Clone, Copy, Debug)]
enum Sharing {
    /// The page is copied.
    Private,
    /// The object's page changes.
    Shared,
    /// The object's page changes, and the first write to a clean page must be caught.
    Announced,
}

/// The change of the marks of write protection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MarkChange {
    Keep,
    /// Every page gets the mark; with `absent` also those that are not there, by markers.
    Set {
        absent: bool,
    },
    Clear,
}

/// The rights that the entries of a VMA are to have.
#[derive(Clone, Copy, Debug)]
pub(in crate::mm) struct Protection {
    rights: Rights,
    sharing: Sharing,
    /// The VMA is registered for write protection: a page with the mark may not be written.
    registered: bool,
    anonymous: bool,
    marks: MarkChange,
}

impl Protection {
    /// The rights of the VMA; marks stay.
    pub(in crate::mm) fn of(vma: &Vma) -> Self {
        let shared = vma.flags.contains(VmFlags::SHARED);
        let pooled = vma.flags.contains(VmFlags::HUGETLB);
        Self {
            rights: match pooled {
                true => vma.mapped_rights(),
                false => vma.rights(),
            },
            sharing: match shared {
                _ if pooled => Sharing::Shared,
                false => Sharing::Private,
                true if vma.notes_writes() || vma.is_uffd_wp() => Sharing::Announced,
                true => Sharing::Shared,
            },
            registered: vma.is_uffd_wp(),
            anonymous: vma.is_anonymous(),
            marks: MarkChange::Keep,
        }
    }
    /// The rights of the VMA, and write protection by userfaultfd over all of it, or over none of
    /// it (`uffd_wp_range`).
    pub(in crate::mm) fn by_userfault(vma: &Vma, protect: bool) -> Self {
        let absent = vma.uses_markers();
        Self {
            marks: match protect {
                true => MarkChange::Set { absent },
                false => MarkChange::Clear,
            },
            ..Self::of(vma)
        }
    }
    /// Returns true if absent pages get markers, for which there must be tables.
    fn needs_tables(&self) -> bool {
        self.marks == MarkChange::Set { absent: true }
    }
    /// Returns true if huge pages are split: a marker stands for a small page
    /// (`pgtable_split_needed`).
    fn splits_all(&self) -> bool {
        !self.anonymous && matches!(self.marks, MarkChange::Set { .. })
    }
}

/// The change of a part of one VMA.
#[derive(Clone, Copy, Debug)]
pub(in crate::mm) struct VmaProtection {
    part: VpnRange,
    new: Protection,
    /// Of huge pages of a pool: the one window, over tables that others may share too, and what the
    /// VMA shares from then on.
    wide: Option<(VpnRange, TableSharing)>,
}

impl VmaProtection {
    /// The rights of the VMA.
    pub(in crate::mm) fn of(vma: &Vma, part: VpnRange) -> Self {
        Self::new(vma, part, Protection::of(vma))
    }
    /// Those, and write protection by userfaultfd: [`Protection::by_userfault`].
    pub(in crate::mm) fn by_userfault(vma: &Vma, part: VpnRange, protect: bool) -> Self {
        Self::new(vma, part, Protection::by_userfault(vma, protect))
    }
    fn new(vma: &Vma, part: VpnRange, new: Protection) -> Self {
        let pooled = vma.flags.contains(VmFlags::HUGETLB);
        let wide = pooled.then(|| {
            let window = with_shared_tables(vma.range(), vma.flags, part);
            (window, TableSharing::of(vma))
        });
        Self { part, new, wide }
    }
}

impl Lease<'_, rank::Mmap, Sleepable> {
    /// Changes a part of a VMA; sets `done` when every entry has its new rights.
    ///
    /// # Errors
    ///
    /// No memory for the tables of markers; only then.
    pub(in crate::mm) fn protect(
        self,
        change: VmaProtection,
        done: &mut bool,
    ) -> Result<(), NoMemory> {
        let VmaProtection { part, new, wide } = change;
        let Some((window, sharing)) = wide else {
            return self.change_protection(part, new, done);
        };
        self.protect_huge_pages((window, sharing), part, new)?;
        *done = true;
        Ok(())
    }
    /// Changes the entries of `part`; sets `done` when every entry has its new rights.
    ///
    /// # Errors
    ///
    /// No memory for the tables of markers; only then.
    fn change_protection(
        mut self,
        part: VpnRange,
        new: Protection,
        done: &mut bool,
    ) -> Result<(), NoMemory> {
        for range in self.mm.protected_blocks(&mut self.cx, part, new)? {
            let mut window = self.window(range, Event::ProtectionVma);
            window.change_protection(range, new)?;
            *done = range.end() == part.end();
        }
        *done = true;
        Ok(())
    }
    /// Changes huge pages of a pool in one window, over `wide` (`hugetlb_change_protection`).
    fn protect_huge_pages(
        mut self,
        (wide, sharing): (VpnRange, TableSharing),
        part: VpnRange,
        new: Protection,
    ) -> Result<(), NoMemory> {
        if new.needs_tables() {
            self.mm.make_leaves(&mut self.cx, part)?;
        }
        let mut window = self.window(wide, Event::ProtectionVma);
        window.change_tables(part, |start| sharing.kind(start));
        window.for_each_leaf_in(part, |txn| change_leaf(txn, new));
        Ok(())
    }
}

impl Mm {
    /// Returns the ranges in which `part` is changed: of each 512-GiB block the part from its first
    /// table of 2-MiB entries on.
    fn protected_blocks<R: Rank>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        part: VpnRange,
        new: Protection,
    ) -> Result<SmallVec<[VpnRange; 1]>, NoMemory> {
        if new.needs_tables() {
            self.make_leaves(cx, part)?;
        }
        let view = self.table.view(cx);
        let mut blocks = SmallVec::new();
        let mut at = part.start();
        while at < part.end() {
            let next = at.align_down(PGD_PAGES).plus(PGD_PAGES).min(part.end());
            let block = VpnRange::new(at, next).expect("next lies above at");
            let first = view.first_pmd(block);
            blocks.extend(first.and_then(|first| VpnRange::new(first, next)));
            at = next;
        }
        Ok(blocks)
    }
    /// Makes every leaf of the range.
    fn make_leaves<R: Rank>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        range: VpnRange,
    ) -> Result<(), NoMemory> {
        let view = self.table.view(cx);
        let mut at = range.start();
        while at < range.end() {
            view.make_leaf(at)?;
            at = at.align_down(PMD_PAGES).plus(PMD_PAGES);
        }
        Ok(())
    }
}

impl InvalidationWindow<'_, Sleepable> {
    /// Changes the entries of `part` in windows inside of this one.
    ///
    /// # Errors
    ///
    /// As [`Lease::change_protection`].
    pub(in crate::mm) fn protect_inside(
        &mut self,
        part: VpnRange,
        new: Protection,
    ) -> Result<(), NoMemory> {
        let mm = self.mm();
        for range in mm.protected_blocks(&mut self.cx(), part, new)? {
            let mut window = self.nested(range, Event::ProtectionVma);
            window.change_protection(range, new)?;
        }
        Ok(())
    }
    fn change_protection(&mut self, range: VpnRange, new: Protection) -> Result<(), NoMemory> {
        while !self.change_whole(range, new)? {}
        Ok(())
    }
    /// Returns false if a fault has mapped a huge page meanwhile that must be split.
    fn change_whole(&mut self, range: VpnRange, new: Protection) -> Result<bool, NoMemory> {
        self.split_edges(range);
        if new.splits_all() {
            let mut at = range.start();
            while at < range.end() {
                self.split_pmd(at);
                at = at.align_down(PMD_PAGES).plus(PMD_PAGES);
            }
            let mm = self.mm();
            if new.needs_tables() {
                // The split of an object's huge page dropped its table.
                mm.make_leaves(&mut self.cx(), range)?;
            }
        }
        let mut all = true;
        self.for_each_leaf_in(range, |txn| {
            if txn.cuts_huge() || (new.splits_all() && txn.leaf().is_huge()) {
                all = false;
            } else {
                change_leaf(txn, new);
            }
        });
        Ok(all)
    }
}

/// Gives each entry of a leaf the rights of its VMA.
fn change_leaf(txn: &mut PteTxn<'_>, new: Protection) {
    // One loop for both, so that the work on an entry is inlined into it.
    let marks = matches!(new.marks, MarkChange::Set { .. });
    let loses_write = (!new.rights.write || marks) && txn.mem().has_exported();
    txn.each_entry(|slot| {
        if loses_write {
            let pte = slot.raw();
            if pte.may_write() {
                slot.lose_write(pte);
            }
        }
        change_pte(slot, new);
    });
    if new.needs_tables() {
        let leaf = txn.leaf();
        let empty = txn.range().iter().filter(|&at| leaf.get(at).is_none());
        empty.for_each(|at| leaf.set(at, RawPte::WP_MARKER));
    }
}

/// Gives one entry the rights of its VMA; the right to write only if a write neither copies nor
/// must be caught (`can_change_pte_writable`).
#[inline]
fn change_pte(slot: PteSlot<'_>, new: Protection) {
    let old = slot.raw();
    if old.is_guard() || old.is_poison() {
        return; // No access to the page ever succeeds.
    }
    let marked = match new.marks {
        MarkChange::Keep => old,
        MarkChange::Set { .. } => old.mkuffd_wp(),
        MarkChange::Clear => old.clear_uffd_wp(),
    };
    let own = |pfn| slot.mem().flags(pfn).contains(FrameFlags::ANON_EXCLUSIVE);
    let silent = || match new.sharing {
        Sharing::Private => marked.counted().is_some_and(own),
        Sharing::Shared => true,
        // Nothing certain is known of a page that moves.
        Sharing::Announced => marked.is_present() && marked.is_dirty(),
    };
    let caught = new.registered && marked.is_uffd_wp();
    // The frame is looked at only where its page may become writable.
    let write = new.rights.write && !caught && silent();
    let rights = Rights {
        write,
        ..new.rights
    };
    slot.protect_as(marked, rights);
}
