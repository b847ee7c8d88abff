//! The word of a page-table entry: its bits, its kinds and the changes that keep its kind.
//!
//! An entry is empty, present, or of one of the kinds of [`not_present`](super::not_present). A
//! present entry keeps its frame in the bits where x86-64 has it. Everything here is arithmetic on
//! a word: `page_table` reads and stores it.

use crate::{addr::Pfn, frame::SwapSlot, notifier::Access};

/// One entry of a leaf table; bits that x86-64 has are at their x86-64 positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::mm) struct RawPte(pub(in crate::mm) u64);

const PRESENT: u64 = 1 << 0;
const WRITE: u64 = 1 << 1;
pub(in crate::mm) const ACCESSED: u64 = 1 << 5;
pub(in crate::mm) const DIRTY: u64 = 1 << 6;
/// The VMA allows reading. Clear under `PROT_NONE`, where the entry stays present, as on Linux.
pub(in crate::mm) const READ: u64 = 1 << 9;
/// The entry maps the zero page and holds no count.
const ZERO: u64 = 1 << 10;
pub(in crate::mm) const PFN_SHIFT: u32 = 12;
/// The kind of an entry that is neither present nor empty: bits 1 to 3.
pub(in crate::mm) const KIND: u64 = 0b1110;
const GUARD: u64 = 1 << 1;
pub(in crate::mm) const SWAP: u64 = 1 << 2;
/// Place in an object, of a nonlinear mapping: that page of the object belongs here and is not
/// mapped now.
const FILE: u64 = GUARD | SWAP;
pub(in crate::mm) const MIGRATION: u64 = 1 << 3;
/// Of a migration mark: the mapping was writable. Of a private entry: the page may be written.
pub(in crate::mm) const MIGRATION_WRITE: u64 = 1 << 4;
/// Marker of a page that is absent and write-protected by userfaultfd (`PTE_MARKER_UFFD_WP`).
pub(in crate::mm) const MARKER: u64 = GUARD | MIGRATION;
/// Marker of a page that userfaultfd poisoned (`PTE_MARKER_POISONED`).
pub(in crate::mm) const POISON: u64 = SWAP | MIGRATION;
/// Of every kind of entry: userfaultfd write-protects the page (`pte_uffd_wp`, `pte_swp_uffd_wp`).
pub(in crate::mm) const UFFD_WP: u64 = 1 << 11;
/// Of a migration mark: the page is part of a huge page that was mapped as one
/// (`is_pmd_migration_entry`).
pub(in crate::mm) const MIGRATION_AS_ONE: u64 = 1 << 8;
/// Of a swap entry or a migration mark: no other entry refers to the page (`pte_swp_exclusive`).
pub(in crate::mm) const SWAP_EXCLUSIVE: u64 = 1 << 7;

/// The rights that an entry gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::mm) struct Rights {
    pub(in crate::mm) read: bool,
    pub(in crate::mm) write: bool,
}

impl RawPte {
    /// The empty entry.
    pub(in crate::mm) const NONE: Self = Self(0);
    /// A guard marker (`PTE_MARKER_GUARD`).
    pub(in crate::mm) const GUARD: Self = Self(GUARD);

    /// An entry that maps frame `pfn`, young and clean.
    #[inline]
    pub(in crate::mm) fn frame(pfn: Pfn, rights: Rights) -> Self {
        Self(u64::from(pfn.0) << PFN_SHIFT | PRESENT | ACCESSED).with_rights(rights)
    }
    /// An entry that maps the zero page `pfn`; never writable.
    #[inline]
    pub(in crate::mm) fn zero(pfn: Pfn, rights: Rights) -> Self {
        let rights = Rights {
            write: false,
            ..rights
        };
        Self(u64::from(pfn.0) << PFN_SHIFT | PRESENT | ACCESSED | ZERO).with_rights(rights)
    }
    /// An entry that keeps the place `index` in the object, in pages (`pgoff_to_pte`).
    #[inline]
    pub(in crate::mm) const fn file(index: u64) -> Self {
        Self(index << PFN_SHIFT | FILE)
    }
    /// Place in the object that the entry keeps, in pages; `None` of any other kind.
    #[inline]
    pub(in crate::mm) const fn file_index(self) -> Option<u64> {
        if self.is_of_kind(FILE) {
            Some(self.0 >> PFN_SHIFT)
        } else {
            None
        }
    }
    /// Replaces the rights.
    #[inline]
    pub(in crate::mm) fn with_rights(self, rights: Rights) -> Self {
        let mut bits = self.0 & !(READ | WRITE);
        if rights.read {
            bits |= READ;
        }
        if rights.write {
            bits |= WRITE;
        }
        Self(bits)
    }
    #[inline]
    pub(in crate::mm) const fn is_none(self) -> bool {
        self.0 == 0
    }
    #[inline]
    pub(in crate::mm) const fn is_present(self) -> bool {
        self.0 & PRESENT != 0
    }
    /// Returns true if the entry maps the zero page, of either size.
    #[inline]
    pub(in crate::mm) const fn is_zero_page(self) -> bool {
        self.0 & (PRESENT | ZERO) == PRESENT | ZERO
    }
    /// Returns true if the entry is not present and of this kind.
    #[inline]
    pub(in crate::mm) const fn is_of_kind(self, kind: u64) -> bool {
        self.0 & (PRESENT | KIND) == kind
    }
    /// Returns true for a guard marker: every access to the page is SIGSEGV.
    #[inline]
    pub(in crate::mm) const fn is_guard(self) -> bool {
        self.is_of_kind(GUARD)
    }
    /// Swap slot of the page; `None` of any other kind.
    #[inline]
    #[allow(clippy::cast_possible_truncation)]
    pub(in crate::mm) const fn swap_slot(self) -> Option<SwapSlot> {
        if self.is_of_kind(SWAP) {
            Some(SwapSlot((self.0 >> PFN_SHIFT) as u32))
        } else {
            None
        }
    }
    /// Returns true if the entry is neither empty nor present.
    #[inline]
    pub(in crate::mm) const fn is_other(self) -> bool {
        !self.is_none() && !self.is_present()
    }
    #[inline]
    pub(in crate::mm) const fn may_read(self) -> bool {
        self.0 & READ != 0
    }
    #[inline]
    pub(in crate::mm) const fn may_write(self) -> bool {
        self.0 & WRITE != 0
    }
    /// Returns true if a page is present for the access.
    #[inline]
    pub(in crate::mm) const fn allows(self, access: Access) -> bool {
        self.is_present()
            && self.may_read()
            && match access {
                Access::Read => true,
                Access::Write => self.may_write(),
            }
    }
    #[inline]
    pub(in crate::mm) const fn is_dirty(self) -> bool {
        self.0 & DIRTY != 0
    }
    #[inline]
    pub(in crate::mm) const fn is_young(self) -> bool {
        self.0 & ACCESSED != 0
    }
    /// Frame of a present entry, the zero page included; meaningless for any other.
    #[inline]
    #[allow(clippy::cast_possible_truncation)]
    pub(in crate::mm) const fn pfn(self) -> Pfn {
        debug_assert!(self.is_present());
        Pfn((self.0 >> PFN_SHIFT) as u32)
    }
    /// Frame that the entry holds a count on: it is present and not the zero page.
    #[inline]
    pub(in crate::mm) const fn counted(self) -> Option<Pfn> {
        if self.0 & (PRESENT | ZERO) == PRESENT {
            Some(self.pfn())
        } else {
            None
        }
    }
    /// Replaces the frame and keeps the other bits.
    #[inline]
    pub(in crate::mm) fn with_pfn(self, pfn: Pfn) -> Self {
        Self(self.0 & ((1 << PFN_SHIFT) - 1) | u64::from(pfn.0) << PFN_SHIFT)
    }
    #[inline]
    pub(in crate::mm) const fn wrprotect(self) -> Self {
        Self(self.0 & !WRITE)
    }
    #[inline]
    pub(in crate::mm) const fn mkold(self) -> Self {
        Self(self.0 & !ACCESSED)
    }
    #[inline]
    pub(in crate::mm) const fn mkyoung(self) -> Self {
        Self(self.0 | ACCESSED)
    }
    #[inline]
    pub(in crate::mm) const fn mkdirty(self) -> Self {
        Self(self.0 | DIRTY | ACCESSED)
    }
    #[inline]
    pub(in crate::mm) const fn mkclean(self) -> Self {
        Self(self.0 & !DIRTY)
    }
}

/// Content of a page-table entry, as a driver or a test sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pte {
    /// No page is mapped, nor one expected back.
    None,
    /// A frame or the zero page is mapped.
    Present {
        /// Number of the frame.
        pfn: Pfn,
        /// True if a store goes through without a fault.
        write: bool,
    },
    /// The page is in this swap slot.
    Swap(SwapSlot),
    /// A guard marker: access is SIGSEGV.
    Guard,
    /// The page is absent and write-protected by userfaultfd.
    Protected,
    /// The page was poisoned by userfaultfd: access is SIGBUS.
    Poisoned,
    /// The page lies on a device: access brings it home.
    Device {
        /// Number of the device's frame.
        pfn: Pfn,
        /// True if the device may write.
        write: bool,
    },
    /// The page is in memory, in this frame, and a device has it alone: access takes it back.
    Exclusive(Pfn),
}

impl From<RawPte> for Pte {
    #[inline]
    fn from(raw: RawPte) -> Self {
        if raw.is_present() {
            Self::Present {
                pfn: raw.pfn(),
                write: raw.may_write(),
            }
        } else if raw.is_guard() {
            Self::Guard
        } else if raw.is_wp_marker() {
            Self::Protected
        } else if raw.is_poison() {
            Self::Poisoned
        } else if let Some(slot) = raw.swap_slot() {
            Self::Swap(slot)
        } else if let Some(pfn) = raw.device_exclusive() {
            Self::Exclusive(pfn)
        } else if let Some((pfn, write)) = raw.on_device() {
            Self::Device { pfn, write }
        } else {
            Self::None
        }
    }
}
