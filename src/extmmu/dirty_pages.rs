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
use std::{collections::BTreeMap, sync::Arc};
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
    /// 64 pages a word.
    words: Arc<Mutex<BTreeMap<u64, u64>>>,
}

impl DirtyPages {
    /// Marks the pages of the bytes `[addr, addr + len)`, up to the end of the 64-bit space.
    pub fn mark(&self, addr: u64, len: u64) {
        let Some(more) = len.checked_sub(1) else {
            return;
        };
        let (first, last) = (addr >> PAGE_SHIFT, addr.saturating_add(more) >> PAGE_SHIFT);
        let mut words = self.words.lock();
        for word in first / 64..=last / 64 {
            let from = first.max(word * 64) % 64;
            let to = last.min(word * 64 + 63) % 64;
            *words.entry(word).or_default() |= u64::MAX >> (63 - (to - from)) << from;
        }
    }
    /// Returns true if the page of an address is marked.
    pub fn is_marked(&self, addr: u64) -> bool {
        let page = addr >> PAGE_SHIFT;
        let words = self.words.lock();
        let word = words.get(&(page / 64));
        word.is_some_and(|word| word >> (page % 64) & 1 == 1)
    }
    /// Returns the first address of each marked page, ascending, and removes the marks.
    pub fn take(&self) -> Vec<u64> {
        let words = std::mem::take(&mut *self.words.lock());
        let pages = words.into_iter().flat_map(|(word, bits)| {
            let set = (0..64).filter(move |bit| bits >> bit & 1 == 1);
            set.map(move |bit| word * 64 + bit)
        });
        pages.map(|page| page << PAGE_SHIFT).collect()
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
        let at = first.0 + page * PAGE_SIZE;
        let at = usize::try_from(at).expect("an offset of a bitmap");
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
