//! Dirty pages as the device models and the migration of rust-vmm have them
//! (`vm_memory::bitmap`, feature `vm-memory`).
//!
//! Stores through slices mark pages by themselves, wherever a slice has a [`DirtyPages`] or another
//! `Bitmap`. The stores of a guest's processors come from the dirty log of the KVM model:
//! [`mark_log`] brings them into the same bitmap.

use crate::{
    addr::{PAGE_SHIFT, PAGE_SIZE},
    sync::Mutex,
};
use std::{collections::BTreeMap, ops::RangeInclusive, sync::Arc};
use vm_memory::bitmap::{Bitmap, BitmapSlice, NewBitmap, WithBitmapSlice};

/// A set of pages, by the addresses of a guest or of a device: of any size, and sparse.
///
/// Clones are the same set. A store marks its pages before the call that stores returns.
///
/// # Examples
///
/// ```
/// use emmu::extmmu::dirty_pages::{DirtyPages, mark_log};
/// use vm_memory::{GuestAddress, bitmap::Bitmap};
///
/// let dirty = DirtyPages::default();
/// dirty.mark_dirty(0x1fff, 2); // across two pages
/// mark_log(&dirty, GuestAddress(0x10_0000), &[3]); // as `Vm::dirty_log` returns
/// assert!(dirty.dirty_at(0x2abc) && !dirty.dirty_at(0x3000));
/// assert_eq!(dirty.take(), [0x1000, 0x2000, 0x10_3000]);
/// assert_eq!(dirty.take(), [] as [u64; 0]);
/// ```
#[derive(Clone, Debug, Default)]
pub struct DirtyPages {
    /// The last page of each range of marked pages, by the first one. They do not touch.
    ranges: Arc<Mutex<BTreeMap<u64, u64>>>,
}

impl DirtyPages {
    /// Marks the pages of the bytes `[addr, addr + len)`, up to the end of the 64-bit space.
    pub fn mark(&self, addr: u64, len: u64) {
        let Some(more) = len.checked_sub(1) else {
            return;
        };
        let mut first = addr >> PAGE_SHIFT;
        let mut last = addr.saturating_add(more) >> PAGE_SHIFT;
        let mut ranges = self.ranges.lock();
        while let Some((&from, &to)) = ranges.range(..=last + 1).next_back() {
            if to + 1 < first {
                break;
            }
            if from <= first && last <= to {
                return;
            }
            ranges.remove(&from);
            (first, last) = (first.min(from), last.max(to));
        }
        ranges.insert(first, last);
    }
    /// Returns true if the page of an address is marked.
    pub fn is_marked(&self, addr: u64) -> bool {
        let page = addr >> PAGE_SHIFT;
        let ranges = self.ranges.lock();
        let before = ranges.range(..=page).next_back();
        before.is_some_and(|(_, &last)| page <= last)
    }
    /// Returns the first address of each marked page, ascending, and removes the marks.
    pub fn take(&self) -> Vec<u64> {
        let ranges = self.take_ranges().into_iter();
        let pages =
            ranges.flat_map(|bytes| (bytes.start() >> PAGE_SHIFT)..=(bytes.end() >> PAGE_SHIFT));
        pages.map(|page| page << PAGE_SHIFT).collect()
    }
    /// Returns the addresses of the marked pages as ranges that do not touch, ascending, and
    /// removes the marks: for sets that may have more pages than memory has room for.
    pub fn take_ranges(&self) -> Vec<RangeInclusive<u64>> {
        let ranges = std::mem::take(&mut *self.ranges.lock());
        let bytes = |(first, last)| first << PAGE_SHIFT..=last << PAGE_SHIFT | (PAGE_SIZE - 1);
        ranges.into_iter().map(bytes).collect()
    }
}

/// Marks the pages of a dirty log ([`Vm::dirty_log`](super::kvm::Vm::dirty_log)) in a bitmap of
/// `vm_memory`, of which a memory slot begins at offset `first`.
///
/// # Panics
///
/// If a page lies above the offsets that a `usize` can have.
pub fn mark_log(bitmap: &impl Bitmap, first: vm_memory::GuestAddress, log: &[u64]) {
    for page in log {
        let at = page.checked_mul(PAGE_SIZE);
        let at = at.and_then(|at| usize::try_from(at.checked_add(first.0)?).ok());
        let at = at.expect("an offset of a bitmap");
        bitmap.mark_dirty(at, PAGE_SIZE as usize);
    }
}

/// A part of a set of pages, which begins at an address of its own.
#[derive(Clone, Debug)]
pub struct DirtySlice {
    pages: DirtyPages,
    base: u64,
}

impl WithBitmapSlice<'_> for DirtyPages {
    type S = DirtySlice;
}
impl Bitmap for DirtyPages {
    fn mark_dirty(&self, offset: usize, len: usize) {
        self.mark(offset as u64, len as u64);
    }
    fn dirty_at(&self, offset: usize) -> bool {
        self.is_marked(offset as u64)
    }
    fn slice_at(&self, offset: usize) -> DirtySlice {
        DirtySlice {
            pages: self.clone(),
            base: offset as u64,
        }
    }
}
impl NewBitmap for DirtyPages {
    fn with_len(_len: usize) -> Self {
        Self::default()
    }
}

impl WithBitmapSlice<'_> for DirtySlice {
    type S = Self;
}
impl BitmapSlice for DirtySlice {}
impl Bitmap for DirtySlice {
    fn mark_dirty(&self, offset: usize, len: usize) {
        let at = self.base.saturating_add(offset as u64);
        self.pages.mark(at, len as u64);
    }
    fn dirty_at(&self, offset: usize) -> bool {
        self.pages
            .is_marked(self.base.saturating_add(offset as u64))
    }
    fn slice_at(&self, offset: usize) -> Self {
        Self {
            pages: self.pages.clone(),
            base: self.base.saturating_add(offset as u64),
        }
    }
}
