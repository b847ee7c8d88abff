//! Entries of pages that lie on a device: the page table knows the frame, and no processor can use
//! it (`make_writable_device_private_entry` and its sibling).
//!
//! A *private entry* holds a count and a mapping of its frame, as a present entry does. So the frame
//! keeps whether the page is exclusive, and the entry only whether it may be written.

use super::pte::{KIND, MIGRATION_WRITE, PFN_SHIFT, RawPte, Rights};
use crate::addr::Pfn;

/// The kind of a private entry: all bits of the kind.
const DEVICE: u64 = KIND;

impl RawPte {
    /// An entry for a page that lies in this frame of a device.
    #[inline]
    pub(in crate::mm) fn private(pfn: Pfn, write: bool) -> Self {
        let right = if write { MIGRATION_WRITE } else { 0 };
        Self(u64::from(pfn.0) << PFN_SHIFT | DEVICE | right)
    }
    /// Frame of a page that lies on a device; `None` of any other kind.
    #[inline]
    #[allow(clippy::cast_possible_truncation)]
    pub(in crate::mm) const fn device_private(self) -> Option<Pfn> {
        if self.is_of_kind(DEVICE) {
            Some(Pfn((self.0 >> PFN_SHIFT) as u32))
        } else {
            None
        }
    }
    /// Frame that the entry holds a count and a mapping of, in memory or on a device.
    #[inline]
    pub(in crate::mm) fn mapped(self) -> Option<Pfn> {
        self.counted().or_else(|| self.device_private())
    }
    /// Frame of a page that the device has itself, and whether the device may write it.
    #[inline]
    pub(in crate::mm) fn on_device(self) -> Option<(Pfn, bool)> {
        Some((self.device_private()?, self.0 & MIGRATION_WRITE != 0))
    }
    /// This entry of a page on a device, without the right to write; any other as it is.
    #[inline]
    pub(in crate::mm) const fn device_read_only(self) -> Self {
        match self.device_private() {
            Some(_) => Self(self.0 & !MIGRATION_WRITE),
            None => self,
        }
    }
    /// The private entry that replaces this mark once the page is at `pfn`, with no right that the
    /// VMA lacks by now or that the mark did not keep (`remove_migration_pte`).
    #[inline]
    pub(in crate::mm) fn arrived_on_device(self, pfn: Pfn, vma: Rights) -> Self {
        Self::private(pfn, vma.write && self.was_writable()).in_place_of(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_entry_is_of_no_other_kind_and_keeps_its_right() {
        for write in [false, true] {
            let pte = RawPte::private(Pfn(7), write);
            assert_eq!(pte.on_device(), Some((Pfn(7), write)));
            assert_eq!(
                (pte.counted(), pte.mapped(), pte.migrating()),
                (None, Some(Pfn(7)), None)
            );
            assert!(pte.is_other() && !pte.is_vacant() && !pte.is_marker());
            assert_eq!((pte.swap_slot(), pte.file_index()), (None, None));
            for less in [pte.forked(), pte.reprotected(true), pte.mkuffd_wp()] {
                assert_eq!(less.on_device(), Some((Pfn(7), false)));
            }
        }
    }

    #[test]
    fn a_page_goes_to_a_device_and_home_with_the_rights_that_it_had() {
        let vma = |write| Rights { read: true, write };
        for write in [false, true] {
            let pte = RawPte::frame(Pfn(5), vma(write));
            let there = pte.leaving(true).arrived_on_device(Pfn(7), vma(true));
            assert_eq!(there.on_device(), Some((Pfn(7), write)));
            let home = there.leaving(true).arrived(Pfn(6), vma(true), false);
            assert_eq!(home, pte.with_pfn(Pfn(6)).mkold());
            let denied = pte.leaving(true).arrived_on_device(Pfn(7), vma(false));
            assert_eq!(denied.on_device(), Some((Pfn(7), false)));
        }
        let marked = RawPte::frame(Pfn(5), vma(false)).mkuffd_wp();
        let there = marked.leaving(true).arrived_on_device(Pfn(7), vma(true));
        assert!(there.is_uffd_wp() && there.leaving(true).is_uffd_wp());
    }
}
