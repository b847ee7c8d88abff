//! The mark of write protection by userfaultfd in entries of every kind, and the markers that
//! userfaultfd puts in the place of absent pages.
//!
//! An entry with the mark never has the right to write, as long as its VMA is registered for write
//! protection. The mark goes along when the page goes to swap or to another frame. In the place of
//! an absent page there is a *marker*: a page that comes in later has the mark from the beginning.

use super::pte::{MARKER, MIGRATION_WRITE, POISON, RawPte, UFFD_WP};

impl RawPte {
    /// The marker of an absent page that is write-protected.
    pub(in crate::mm) const WP_MARKER: Self = Self(MARKER | UFFD_WP);
    /// The marker of a poisoned page.
    pub(in crate::mm) const POISON: Self = Self(POISON);

    /// Returns true if userfaultfd write-protects the page, present or not.
    #[inline]
    pub(in crate::mm) const fn is_uffd_wp(self) -> bool {
        self.0 & UFFD_WP != 0
    }
    /// Returns true for the marker of an absent page that is write-protected.
    #[inline]
    pub(in crate::mm) const fn is_wp_marker(self) -> bool {
        self.is_of_kind(MARKER)
    }
    /// Returns true for the marker of a poisoned page.
    #[inline]
    pub(in crate::mm) const fn is_poison(self) -> bool {
        self.is_of_kind(POISON)
    }
    /// Returns true if a page may be put here: the entry is empty, or has only the marker.
    #[inline]
    pub(in crate::mm) const fn is_vacant(self) -> bool {
        self.is_none() || self.is_wp_marker()
    }
    /// Returns true for a marker of any kind: of a guard, of poison, of write protection.
    #[inline]
    pub(in crate::mm) const fn is_marker(self) -> bool {
        self.is_guard() || self.is_poison() || self.is_wp_marker()
    }
    /// Returns true if no page is here, but perhaps a marker of any kind (`pte_none_mostly`).
    #[inline]
    pub(in crate::mm) const fn is_none_mostly(self) -> bool {
        self.is_none() || self.is_marker()
    }
    /// Sets the mark, and takes the right to write. An empty entry becomes the marker.
    #[inline]
    pub(in crate::mm) const fn mkuffd_wp(self) -> Self {
        if self.is_none() {
            Self::WP_MARKER
        } else if self.is_present() {
            Self(self.wrprotect().0 | UFFD_WP)
        } else {
            let right = if self.migrating().is_some() || self.of_device().is_some() {
                MIGRATION_WRITE
            } else {
                0
            };
            Self(self.0 & !right | UFFD_WP)
        }
    }
    /// Clears the mark; the marker becomes an empty entry. Rights stay as they are.
    #[inline]
    pub(in crate::mm) const fn clear_uffd_wp(self) -> Self {
        if self.is_wp_marker() {
            Self::NONE
        } else {
            Self(self.0 & !UFFD_WP)
        }
    }
    /// This entry, with the mark if the entry `old`, which it replaces, has it.
    #[inline]
    pub(in crate::mm) const fn in_place_of(self, old: Self) -> Self {
        if old.is_uffd_wp() {
            self.mkuffd_wp()
        } else {
            self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{addr::Pfn, frame::SwapSlot, mm::entry::pte::Rights};

    const RW: Rights = Rights {
        read: true,
        write: true,
    };

    #[test]
    fn a_marked_entry_is_what_it_was_without_the_right_to_write() {
        let present = RawPte::frame(Pfn(5), RW).mkdirty();
        for pte in [
            present,
            present.leaving(true),
            RawPte::swap(SwapSlot(9), true),
            RawPte::zero(Pfn(1), RW),
        ] {
            let marked = pte.mkuffd_wp();
            assert!(marked.is_uffd_wp() && !marked.is_vacant());
            assert_eq!(marked.counted(), pte.counted());
            assert_eq!(marked.swap_slot(), pte.swap_slot());
            assert_eq!(marked.migrating(), pte.migrating());
            assert!(!marked.was_writable());
            assert!(!marked.is_present() || !marked.may_write());
            assert!(!marked.clear_uffd_wp().is_uffd_wp());
        }
        let moved = present.mkuffd_wp().leaving(true);
        assert!(moved.arrived(Pfn(6), RW, true).is_uffd_wp());
        assert!(!moved.arrived(Pfn(6), RW, true).may_write());
    }

    #[test]
    fn markers_are_kinds_of_their_own() {
        let (marker, poison) = (RawPte::WP_MARKER, RawPte::POISON);
        assert_eq!(RawPte::NONE.mkuffd_wp(), marker);
        assert_eq!(marker.clear_uffd_wp(), RawPte::NONE);
        assert!(marker.is_vacant() && !poison.is_vacant());
        for pte in [marker, poison] {
            assert!(!pte.is_guard() && !pte.is_present() && pte.is_other());
            assert_eq!((pte.swap_slot(), pte.migrating()), (None, None));
            assert_eq!((pte.file_index(), pte.counted()), (None, None));
        }
        for pte in [RawPte::GUARD, poison] {
            let marked = pte.mkuffd_wp();
            assert!(marked.is_marker() && marked.is_uffd_wp() && !marked.is_vacant());
            assert_eq!(marked.clear_uffd_wp(), pte);
        }
    }
}
