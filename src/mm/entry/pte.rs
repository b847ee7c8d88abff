//! What a page-table entry says.

use crate::{addr::Pfn, frame::SwapSlot};

/// One entry of a leaf table, in the bit positions of x86-64 where x86-64 has the bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::mm) struct RawPte(pub(in crate::mm) u64);

const PRESENT: u64 = 1 << 0;
const WRITE: u64 = 1 << 1;
pub(in crate::mm) const ACCESSED: u64 = 1 << 5;
pub(in crate::mm) const DIRTY: u64 = 1 << 6;
/// The VMA allows reading: clear under `PROT_NONE`, where Linux keeps the entry present as well.
const READ: u64 = 1 << 9;
/// Maps the zero page: no count is held.
const ZERO: u64 = 1 << 10;
pub(in crate::mm) const PFN_SHIFT: u32 = 12;
/// Not present, and not empty: bits 1..4 say what it is.
const KIND: u64 = 0b1110;
const GUARD: u64 = 1 << 1;
pub(in crate::mm) const SWAP: u64 = 1 << 2;
/// Of a nonlinear mapping: not there now, but this page of the object belongs here.
const FILE: u64 = GUARD | SWAP;
pub(in crate::mm) const MIGRATION: u64 = 1 << 3;
/// Of a mark: the mapping could be written through.
pub(in crate::mm) const MIGRATION_WRITE: u64 = 1 << 4;
/// Of a swap entry or a mark: no other entry refers to the slot's page (`pte_swp_exclusive`).
pub(in crate::mm) const SWAP_EXCLUSIVE: u64 = 1 << 7;

/// The rights an entry gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::mm) struct Rights {
    pub(in crate::mm) read: bool,
    pub(in crate::mm) write: bool,
}

impl RawPte {
    pub(in crate::mm) const NONE: Self = Self(0);
    /// A guard marker (`PTE_MARKER_GUARD`).
    pub(in crate::mm) const GUARD: Self = Self(GUARD);

    #[inline]
    pub(in crate::mm) fn frame(pfn: Pfn, rights: Rights) -> Self {
        Self(u64::from(pfn.0) << PFN_SHIFT | PRESENT | ACCESSED).with_rights(rights)
    }
    #[inline]
    pub(in crate::mm) fn zero(pfn: Pfn, rights: Rights) -> Self {
        let rights = Rights {
            write: false,
            ..rights
        };
        Self(u64::from(pfn.0) << PFN_SHIFT | PRESENT | ACCESSED | ZERO).with_rights(rights)
    }
    /// A page of the object that is to be mapped here (`pgoff_to_pte`).
    #[inline]
    pub(in crate::mm) const fn file(index: u64) -> Self {
        Self(index << PFN_SHIFT | FILE)
    }
    /// The page of the object that is to be mapped here.
    #[inline]
    pub(in crate::mm) const fn file_index(self) -> Option<u64> {
        if self.is_of_kind(FILE) {
            Some(self.0 >> PFN_SHIFT)
        } else {
            None
        }
    }
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
    #[inline]
    pub(in crate::mm) const fn is_zero_page(self) -> bool {
        self.0 & (PRESENT | ZERO) == PRESENT | ZERO
    }
    /// Not present, and of this kind.
    #[inline]
    pub(in crate::mm) const fn is_of_kind(self, kind: u64) -> bool {
        self.0 & (PRESENT | KIND) == kind
    }
    #[inline]
    pub(in crate::mm) const fn is_guard(self) -> bool {
        self.is_of_kind(GUARD)
    }
    /// The slot that the page is in.
    #[inline]
    #[allow(clippy::cast_possible_truncation)]
    pub(in crate::mm) const fn swap_slot(self) -> Option<SwapSlot> {
        if self.is_of_kind(SWAP) {
            Some(SwapSlot((self.0 >> PFN_SHIFT) as u32))
        } else {
            None
        }
    }
    /// Neither empty nor a page in memory.
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
    #[inline]
    pub(in crate::mm) const fn is_dirty(self) -> bool {
        self.0 & DIRTY != 0
    }
    #[inline]
    pub(in crate::mm) const fn is_young(self) -> bool {
        self.0 & ACCESSED != 0
    }
    /// The frame; only of a present entry.
    #[inline]
    #[allow(clippy::cast_possible_truncation)]
    pub(in crate::mm) const fn pfn(self) -> Pfn {
        debug_assert!(self.is_present());
        Pfn((self.0 >> PFN_SHIFT) as u32)
    }
    /// A frame that the entry holds a count on: present, and not the zero page.
    #[inline]
    pub(in crate::mm) const fn counted(self) -> Option<Pfn> {
        if self.0 & (PRESENT | ZERO) == PRESENT {
            Some(self.pfn())
        } else {
            None
        }
    }
    /// The same of another frame.
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

/// What a page table says about a page, to whom it may concern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pte {
    /// Nothing.
    None,
    /// A frame, or the zero page.
    Present {
        /// Its number.
        pfn: Pfn,
        /// Whether a store goes through without a fault.
        write: bool,
    },
    /// In swap.
    Swap(SwapSlot),
    /// A guard marker.
    Guard,
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
        } else if let Some(slot) = raw.swap_slot() {
            Self::Swap(slot)
        } else {
            Self::None
        }
    }
}
