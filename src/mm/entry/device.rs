//! Entries of pages that a device has and no processor can use: the page table knows the frame.
//!
//! | entry | the page | Linux's name |
//! | --- | --- | --- |
//! | private entry | lies in a frame of the device; the device may write it or not | device private |
//! | exclusive entry | lies in memory, and a device has it alone for a while | device exclusive |
//!
//! Both hold a count and a mapping of their frame, as a present entry does. So the frame keeps
//! whether the page is exclusive to this entry.

use super::pte::{KIND, MIGRATION_AS_ONE, MIGRATION_WRITE, PFN_SHIFT, READ, RawPte, Rights};
use crate::addr::Pfn;

/// The kind of both: all bits of the kind.
const DEVICE: u64 = KIND;
/// Of this kind: an exclusive entry.
const EXCLUSIVE: u64 = MIGRATION_AS_ONE;

impl RawPte {
    /// An entry for a page that lies in this frame of a device.
    #[inline]
    pub(in crate::mm) fn private(pfn: Pfn, write: bool) -> Self {
        let right = if write { MIGRATION_WRITE } else { 0 };
        Self(u64::from(pfn.0) << PFN_SHIFT | DEVICE | right)
    }
    /// The exclusive entry that replaces this writable one: clean and old, and with its other marks
    /// (`make_device_exclusive_entry`).
    #[inline]
    pub(in crate::mm) fn exclusive(self) -> Self {
        let bits = u64::from(self.pfn().0) << PFN_SHIFT | DEVICE | EXCLUSIVE;
        Self(bits | MIGRATION_WRITE | self.0 & READ).in_place_of(self)
    }
    /// Frame that a device has, by an entry of either kind; `None` of any other kind.
    #[inline]
    #[allow(clippy::cast_possible_truncation)]
    pub(in crate::mm) const fn of_device(self) -> Option<Pfn> {
        if self.is_of_kind(DEVICE) {
            Some(Pfn((self.0 >> PFN_SHIFT) as u32))
        } else {
            None
        }
    }
    /// Frame of a page that lies on a device; `None` of any other kind.
    #[inline]
    pub(in crate::mm) const fn device_private(self) -> Option<Pfn> {
        if self.0 & EXCLUSIVE == 0 {
            self.of_device()
        } else {
            None
        }
    }
    /// Frame of a page in memory that a device has alone; `None` of any other kind.
    #[inline]
    pub(in crate::mm) const fn device_exclusive(self) -> Option<Pfn> {
        if self.0 & EXCLUSIVE != 0 {
            self.of_device()
        } else {
            None
        }
    }
    /// Frame that the entry holds a count and a mapping of, whether a processor can use it or not.
    #[inline]
    pub(in crate::mm) fn mapped(self) -> Option<Pfn> {
        self.counted().or_else(|| self.of_device())
    }
    /// Frame that a device has, and whether it may write there.
    #[inline]
    pub(in crate::mm) fn on_device(self) -> Option<(Pfn, bool)> {
        Some((self.of_device()?, self.0 & MIGRATION_WRITE != 0))
    }
    /// This private entry without the right to write; any other as it is.
    #[inline]
    pub(in crate::mm) const fn device_read_only(self) -> Self {
        match self.device_private() {
            Some(_) => Self(self.0 & !MIGRATION_WRITE),
            None => self,
        }
    }
    /// The present entry, read-only and old, of a page that its device no longer has alone; any
    /// other entry as it is.
    #[inline]
    pub(in crate::mm) fn unexclusive(self) -> Self {
        let Some(pfn) = self.device_exclusive() else {
            return self;
        };
        let rights = Rights {
            read: self.0 & READ != 0,
            write: false,
        };
        Self::frame(pfn, rights).mkold().in_place_of(self)
    }
    /// This exclusive entry in a VMA with these rights; any other as it is. A device whose right to
    /// write went asks for the page anew.
    #[inline]
    pub(in crate::mm) fn exclusive_under(self, vma: Rights) -> Self {
        if self.device_exclusive().is_none() {
            return self;
        }
        let read = if vma.read { READ } else { 0 };
        let gone = if vma.write {
            READ
        } else {
            READ | MIGRATION_WRITE
        };
        Self(self.0 & !gone | read)
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
            let vma = Rights {
                read: true,
                write: true,
            };
            for less in [pte.forked(), pte.reprotected(vma), pte.mkuffd_wp()] {
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

    #[test]
    fn an_exclusive_entry_keeps_its_frame_and_becomes_present_again() {
        let rights = |read, write| Rights { read, write };
        let pte = RawPte::frame(Pfn(5), rights(true, true)).mkdirty();
        let there = pte.exclusive();
        assert_eq!(there.on_device(), Some((Pfn(5), true)));
        assert_eq!(
            (there.mapped(), there.device_private()),
            (Some(Pfn(5)), None)
        );
        assert!(there.is_other() && !there.is_dirty());
        let back = pte.wrprotect().mkclean().mkold();
        assert_eq!((there.unexclusive(), there.forked()), (back, back));
        let denied = there.reprotected(rights(false, false));
        assert!(!denied.unexclusive().may_read());
        let again = denied.reprotected(rights(true, true));
        assert_eq!(again.on_device(), Some((Pfn(5), false)));
        assert!(again.unexclusive().may_read());
        assert_eq!(there.reprotected(rights(true, true)), there);
        assert_eq!(there.mkuffd_wp().on_device(), Some((Pfn(5), false)));
        let mark = there.leaving(true);
        assert!(!mark.was_writable() && mark.migrating() == Some(Pfn(5)));
        assert!(there.mkuffd_wp().unexclusive().is_uffd_wp());
    }
}
