//! What an entry says of its page while the page is not there, and what operations make of that.
//!
//! | entry | the page | refers to it by |
//! | --- | --- | --- |
//! | mark | moves to another frame | the old frame's number; no count |
//! | slot | is in swap | a count on the slot |
//! | guard | must not be | |
//! | place | is one of an object, named out of order | its number in the object |
//!
//! A mark and a slot keep what their page was to this entry: whether it is nobody else's (exclusive), and a mark also whether
//! it was writable, used and dirty. *The frame keeps none of this meanwhile*: a fork that copies the entry makes both copies
//! say that the page is shared, and can do so by the entries alone. What comes back is what the entry says by then.
//! `docs/entries.md` has a table of every entry and every operation, with the test that shows it.

use super::pte::{
    ACCESSED, DIRTY, MIGRATION, MIGRATION_WRITE, PFN_SHIFT, RawPte, Rights, SWAP, SWAP_EXCLUSIVE,
};
use crate::{addr::Pfn, frame::SwapSlot};

impl RawPte {
    /// The slot of a page that was mapped here, perhaps as nobody else's (`pte_swp_mkexclusive`).
    #[inline]
    pub(in crate::mm) const fn swap(slot: SwapSlot, exclusive: bool) -> Self {
        let bits = (slot.0 as u64) << PFN_SHIFT | SWAP;
        Self(if exclusive {
            bits | SWAP_EXCLUSIVE
        } else {
            bits
        })
    }
    /// The mark that takes the place of this entry, which is present, while its page moves: it keeps the right to write, age
    /// and dirtiness (`make_writable_migration_entry` and its like).
    #[inline]
    pub(in crate::mm) fn leaving(self, exclusive: bool) -> Self {
        let mut bits = u64::from(self.pfn().0) << PFN_SHIFT | MIGRATION;
        bits |= self.0 & (ACCESSED | DIRTY);
        if self.may_write() {
            bits |= MIGRATION_WRITE;
        }
        if exclusive {
            bits |= SWAP_EXCLUSIVE;
        }
        Self(bits)
    }
    /// What this mark becomes when its page is at `pfn`: no more than the VMA gives by now, and no more than the mark kept
    /// (`remove_migration_pte`). `dirty`: the frame is.
    #[inline]
    pub(in crate::mm) fn arrived(self, pfn: Pfn, vma: Rights, dirty: bool) -> Self {
        let rights = Rights {
            write: vma.write && self.was_writable(),
            ..vma
        };
        let pte = Self::frame(pfn, rights);
        let pte = if self.is_young() { pte } else { pte.mkold() };
        match self.is_dirty() && dirty {
            true => Self(pte.0 | DIRTY),
            false => pte,
        }
    }
    /// Of a mark: the mapping could be written through.
    #[inline]
    pub(in crate::mm) const fn was_writable(self) -> bool {
        self.0 & MIGRATION_WRITE != 0
    }
    /// Of a slot or a mark: no other entry refers to the page (`pte_swp_exclusive`, `is_readable_exclusive_migration_entry`).
    #[inline]
    pub(in crate::mm) const fn is_swap_exclusive(self) -> bool {
        self.0 & SWAP_EXCLUSIVE != 0
    }
    /// The frame that a mark is of, by number: it stays locked while there are marks of it.
    #[inline]
    #[allow(clippy::cast_possible_truncation)]
    pub(in crate::mm) const fn migrating(self) -> Option<Pfn> {
        if self.is_of_kind(MIGRATION) {
            Some(Pfn((self.0 >> PFN_SHIFT) as u32))
        } else {
            None
        }
    }
    /// The frame that is mapped here or was before it left.
    #[inline]
    pub(in crate::mm) fn counted_or_migrating(self) -> Option<Pfn> {
        self.counted().or_else(|| self.migrating())
    }
    /// What fork makes of an entry of private memory: no right to write, nothing of its own (`copy_present_ptes`,
    /// `copy_nonpresent_pte`). Age and dirtiness stay. Markers and the zero page stay as they are.
    #[inline]
    pub(in crate::mm) fn forked(self) -> Self {
        if self.counted().is_some() {
            self.wrprotect()
        } else if self.swap_slot().is_some() || self.migrating().is_some() {
            Self(self.0 & !(MIGRATION_WRITE | SWAP_EXCLUSIVE))
        } else {
            self
        }
    }
    /// … and that of the child, which has not used the page yet. Of a mark nobody can say so, and none is changed.
    #[inline]
    pub(in crate::mm) const fn inherited(self) -> Self {
        if self.counted().is_some() {
            self.mkold()
        } else {
            self
        }
    }
    /// What a change of rights makes of an entry that is not present: a mark is writable only if a present entry in its place
    /// would be so without a fault (`change_pte_range`). It stays exclusive.
    #[inline]
    pub(in crate::mm) fn reprotected(self, write: bool) -> Self {
        if self.migrating().is_none() {
            self
        } else if write {
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
            let (less, more) = (mark.reprotected(false), mark.reprotected(true));
            assert!(!less.was_writable() && more.was_writable());
            assert_eq!(less.is_swap_exclusive(), exclusive);
            assert_eq!(RawPte::GUARD.reprotected(true), RawPte::GUARD);
        }
    }
}
