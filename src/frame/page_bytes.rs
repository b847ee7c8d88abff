//! The bytes of one frame: allocated by the first write, zero until then.

use super::pfn::PAGE_BYTES;
use crate::sync::Mutex;

/// The bytes of a frame under their lock; `None`: all zero.
#[derive(Default)]
pub(super) struct PageBytes(Mutex<Option<Box<[u8; PAGE_BYTES]>>>);

impl PageBytes {
    /// Copies `out.len()` bytes from `offset` on.
    ///
    /// # Panics
    ///
    /// If the bytes leave the page.
    #[inline]
    pub(super) fn read(&self, offset: usize, out: &mut [u8]) {
        match &*self.0.lock() {
            Some(page) => out.copy_from_slice(&page[offset..offset + out.len()]),
            None => {
                assert!(offset + out.len() <= PAGE_BYTES, "a read leaves its page");
                out.fill(0);
            }
        }
    }
    /// Stores all of `bytes` from `offset` on.
    ///
    /// # Panics
    ///
    /// If the bytes leave the page.
    #[inline]
    pub(super) fn write(&self, offset: usize, bytes: &[u8]) {
        let mut held = self.0.lock();
        let page = held.get_or_insert_with(|| Box::new([0; PAGE_BYTES]));
        page[offset..offset + bytes.len()].copy_from_slice(bytes);
    }
    /// Takes over a copy of the contents of another frame; nothing is allocated if the other was
    /// never written.
    pub(super) fn copy_from(&self, other: &Self) {
        let copy = other.0.lock().clone();
        *self.0.lock() = copy;
    }
    /// Returns true if the bytes are equal. Compares a copy of one, so that two locks are never
    /// held.
    pub(super) fn equals(&self, other: &Self) -> bool {
        let mine = self.0.lock().clone();
        match (mine, &*other.0.lock()) {
            (Some(a), Some(b)) => a == *b,
            (None, None) => true,
            (Some(page), None) => page.iter().all(|&b| b == 0),
            (None, Some(page)) => page.iter().all(|&b| b == 0),
        }
    }
    /// Returns true if all bytes are zero.
    pub(super) fn is_zero(&self) -> bool {
        match &*self.0.lock() {
            Some(page) => page.iter().all(|&b| b == 0),
            None => true,
        }
    }
    /// Returns true if the frame has been written.
    #[cfg(any(test, all(feature = "remote", target_os = "linux")))]
    pub(super) fn is_made(&self) -> bool {
        self.0.lock().is_some()
    }
    /// Releases the bytes: the frame reads zero again.
    pub(super) fn clear(&self) {
        drop(self.0.lock().take());
    }
}
