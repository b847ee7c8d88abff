//! Entries of pages that are not in memory, and their change under fork, `mprotect` and the page's
//! return.
//!
//! | entry | state of the page | refers to it by |
//! | --- | --- | --- |
//! | migration mark | moves to another frame | number of the old frame; no count |
//! | swap slot | is in swap | a count on the slot |
//! | guard marker | must not exist | |
//! | place | is a page of an object, mapped out of order | number of the page in the object |
//! | private entry | lies on a device ([`device`](super::device)) | a count on the device's frame |
//! | exclusive entry | is in memory, and a device has it alone | a count on the frame |
//!
//! A mark and a slot keep the exclusiveness of the page to this entry; a mark also keeps writable,
//! accessed and dirty. *The frame keeps none of this meanwhile.* So a fork can mark both copies as
//! shared by changing the entries alone, and a page that comes back gets the state that its entry
//! has by then. `docs/entries.md` has a table of every entry and every operation, with the test
//! that shows it.

use super::pte::{
    ACCESSED, DIRTY, MIGRATION, MIGRATION_AS_ONE, MIGRATION_WRITE, PFN_SHIFT, RawPte, Rights, SWAP,
    SWAP_EXCLUSIVE, UFFD_WP,
};
use crate::{addr::Pfn, frame::SwapSlot};

impl RawPte {
    /// An entry for a page in swap; `exclusive` if no other entry refers to the page
    /// (`pte_swp_mkexclusive`).
    #[inline]
    pub(in crate::mm) const fn swap(slot: SwapSlot, exclusive: bool) -> Self {
        let bits = (slot.0 as u64) << PFN_SHIFT | SWAP;
        Self(if exclusive {
            bits | SWAP_EXCLUSIVE
        } else {
            bits
        })
    }
    /// The migration mark that replaces this present or private entry while its page moves. The
    /// mark keeps writable, accessed and dirty (`make_writable_migration_entry` and its siblings).
    #[inline]
    pub(in crate::mm) fn leaving(self, exclusive: bool) -> Self {
        let (pfn, write) = match self.on_device() {
            // A page that a device has alone comes back read-only (`try_to_migrate_one`).
            Some((pfn, write)) => (pfn, write && self.device_private().is_some()),
            None => (self.pfn(), self.may_write()),
        };
        let mut bits = u64::from(pfn.0) << PFN_SHIFT | MIGRATION;
        bits |= self.0 & (ACCESSED | DIRTY | UFFD_WP);
        if write {
            bits |= MIGRATION_WRITE;
        }
        if exclusive {
            bits |= SWAP_EXCLUSIVE;
        }
        Self(bits)
    }
    /// The present entry that replaces this mark once the page is at `pfn`
    /// (`remove_migration_pte`).
    ///
    /// The entry has no right that the VMA lacks by now or that the mark did not keep. `dirty` is
    /// the dirtiness of the frame: a clean frame makes a clean entry.
    #[inline]
    pub(in crate::mm) fn arrived(self, pfn: Pfn, vma: Rights, dirty: bool) -> Self {
        let rights = Rights {
            write: vma.write && self.was_writable(),
            ..vma
        };
        let pte = Self::frame(pfn, rights);
        let pte = if self.is_young() { pte } else { pte.mkold() };
        let pte = pte.in_place_of(self);
        match self.is_dirty() && dirty {
            true => Self(pte.0 | DIRTY),
            false => pte,
        }
    }
    /// This mark, of a part of a huge page that was mapped as one (`set_pmd_migration_entry`).
    #[inline]
    pub(in crate::mm) const fn of_huge(self) -> Self {
        Self(self.0 | MIGRATION_AS_ONE)
    }
    /// Returns true of a mark if the page is part of a huge page that was mapped as one.
    #[inline]
    pub(in crate::mm) const fn was_huge(self) -> bool {
        self.is_of_kind(MIGRATION) && self.0 & MIGRATION_AS_ONE != 0
    }
    /// Returns true if the mapping that this mark replaced was writable.
    #[inline]
    pub(in crate::mm) const fn was_writable(self) -> bool {
        self.0 & MIGRATION_WRITE != 0
    }
    /// Returns true of a slot or a mark if no other entry refers to the page (`pte_swp_exclusive`,
    /// `is_readable_exclusive_migration_entry`).
    #[inline]
    pub(in crate::mm) const fn is_swap_exclusive(self) -> bool {
        self.0 & SWAP_EXCLUSIVE != 0
    }
    /// Old frame of a migration mark. The frame stays locked while marks of it exist.
    #[inline]
    #[allow(clippy::cast_possible_truncation)]
    pub(in crate::mm) const fn migrating(self) -> Option<Pfn> {
        if self.is_of_kind(MIGRATION) {
            Some(Pfn((self.0 >> PFN_SHIFT) as u32))
        } else {
            None
        }
    }
    /// Frame that is mapped here, or that a migration mark stands for.
    #[inline]
    pub(in crate::mm) fn counted_or_migrating(self) -> Option<Pfn> {
        self.counted().or_else(|| self.migrating())
    }
    /// The entry of private memory that fork leaves in the parent: read-only and not exclusive
    /// (`copy_present_ptes`, `copy_nonpresent_pte`). Accessed and dirty stay; markers and the zero
    /// page stay as they are.
    #[inline]
    pub(in crate::mm) fn forked(self) -> Self {
        if self.counted().is_some() {
            self.wrprotect()
        } else if self.swap_slot().is_some() || self.migrating().is_some() {
            Self(self.0 & !(MIGRATION_WRITE | SWAP_EXCLUSIVE))
        } else {
            self.device_read_only().unexclusive()
        }
    }
    /// The entry that the child of a fork gets, applied after [`forked`](Self::forked): not
    /// accessed, since the child has not used the page yet. The age of a migrating page is unknown,
    /// so a mark stays. The write protection of userfaultfd goes, since the child's memory is not
    /// registered.
    #[inline]
    pub(in crate::mm) const fn inherited(self) -> Self {
        self.clear_uffd_wp().inherited_protected()
    }
    /// The entry of a child whose memory is registered like its parent's: as
    /// [`inherited`](Self::inherited), but the write protection stays.
    #[inline]
    pub(in crate::mm) const fn inherited_protected(self) -> Self {
        if self.counted().is_some() {
            self.mkold()
        } else {
            self
        }
    }
    /// Applies a change of rights to an entry that is not present (`change_pte_range`).
    ///
    /// A mark becomes writable only if a present entry in its place would be writable without a
    /// fault. Exclusiveness stays. A page on a device becomes read-only in any case.
    #[inline]
    pub(in crate::mm) fn reprotected(self, vma: Rights) -> Self {
        if self.migrating().is_none() {
            self.device_read_only().exclusive_under(vma)
        } else if vma.write {
            Self(self.0 | MIGRATION_WRITE)
        } else {
            Self(self.0 & !MIGRATION_WRITE)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RW: Rights = Rights {
        read: true,
        write: true,
    };
    const NOTHING: Rights = Rights {
        read: false,
        write: false,
    };

    fn states() -> impl Iterator<Item = (RawPte, bool)> {
        let rights = [
            RW,
            Rights {
                read: true,
                write: false,
            },
            NOTHING,
        ];
        rights.into_iter().flat_map(|rights| {
            (0..8).map(move |bits: u32| {
                let pte = RawPte::frame(Pfn(5), rights).mkold();
                let pte = if bits & 1 == 0 { pte } else { pte.mkdirty() };
                let pte = if bits & 2 == 0 {
                    pte.mkold()
                } else {
                    pte.mkyoung()
                };
                (pte, bits & 4 != 0)
            })
        })
    }

    #[test]
    fn what_leaves_and_arrives_is_what_it_was() {
        for (pte, exclusive) in states() {
            let mark = pte.leaving(exclusive);
            assert_eq!(mark.migrating(), Some(Pfn(5)));
            assert_eq!(mark.is_swap_exclusive(), exclusive);
            assert!(!mark.is_present() && mark.is_other());
            assert_eq!((mark.swap_slot(), mark.file_index()), (None, None));
            let vma = Rights {
                read: pte.may_read(),
                ..RW
            };
            assert!(!mark.was_huge() && mark.of_huge().was_huge() && !pte.was_huge());
            assert_eq!(mark.of_huge().arrived(Pfn(5), vma, true), pte);
            assert_eq!(mark.arrived(Pfn(5), vma, true), pte);
            let moved = mark.arrived(Pfn(6), vma, false);
            assert_eq!(moved, pte.with_pfn(Pfn(6)).mkclean());
        }
    }

    #[test]
    fn no_copy_of_a_mark_is_exclusive_or_writable() {
        for (pte, exclusive) in states() {
            let mark = pte.leaving(exclusive);
            for copy in [mark.forked(), mark.forked().inherited()] {
                assert!(!copy.is_swap_exclusive() && !copy.was_writable());
                let used = (copy.is_young(), copy.is_dirty());
                assert_eq!(used, (pte.is_young(), pte.is_dirty()));
                assert_eq!(copy.migrating(), Some(Pfn(5)));
            }
        }
    }

    #[test]
    fn a_mark_has_no_more_rights_than_its_vma() {
        for (pte, exclusive) in states() {
            let mark = pte.leaving(exclusive);
            let arrived = mark.arrived(Pfn(5), NOTHING, true);
            assert!(!arrived.may_read() && !arrived.may_write());
            let read = Rights { write: false, ..RW };
            let (less, more) = (mark.reprotected(read), mark.reprotected(RW));
            assert!(!less.was_writable() && more.was_writable());
            assert_eq!(less.is_swap_exclusive(), exclusive);
            assert_eq!(RawPte::GUARD.reprotected(RW), RawPte::GUARD);
        }
    }
}
