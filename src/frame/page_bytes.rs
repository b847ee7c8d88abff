//! The bytes of one frame: allocated by the first write, zero until then.
//!
//! Guarantee: an access is whole to all other accesses of this crate, which take the lock of the
//! frame. Bytes that were given an address in the host are accessed without that lock by its
//! holders. From then on this crate accesses them atomically, and takes them for written.
//!
//! An address stays the frame's as long as the machine lives. When the frame is retired, its bytes
//! are cleared before they are read again, so nothing that was stored through the address
//! since is seen by the next owner.

use super::{host_page::HostPage, pfn::PAGE_BYTES, word::WordAccess};
use crate::sync::{Mutex, Ordering, hardware::fence};
use std::ptr::NonNull;

type Own = Box<[u8; PAGE_BYTES]>;

#[derive(Default)]
enum Bytes {
    /// All zero.
    #[default]
    None,
    /// They have no address in the host.
    Own(Own),
    /// They were given an address. If it has none of the frame's bytes, these are all zero.
    Host { page: Box<HostPage>, clean: bool },
}

/// The bytes of a frame under their lock.
#[derive(Default)]
pub(super) struct PageBytes(Mutex<Bytes>);

impl Bytes {
    #[inline]
    fn read(&self, offset: usize, out: &mut [u8]) {
        match self {
            Self::Own(page) => out.copy_from_slice(&page[offset..offset + out.len()]),
            Self::Host { page, clean: false } => page.read(offset, out),
            Self::None | Self::Host { .. } => {
                assert!(offset + out.len() <= PAGE_BYTES, "a read leaves its page");
                out.fill(0);
            }
        }
    }
    #[inline]
    fn write(&mut self, offset: usize, bytes: &[u8]) {
        if let Self::None = self {
            *self = Self::Own(Box::new([0; PAGE_BYTES]));
        }
        match self {
            Self::Own(page) => page[offset..offset + bytes.len()].copy_from_slice(bytes),
            host => host.in_use().write(offset, bytes),
        }
    }
    /// Moves the bytes to the host, to a page that `new` makes, unless they are there. What others
    /// stored to that page before is no part of them.
    fn move_to_host(&mut self, new: impl FnOnce() -> HostPage) {
        let (page, clean) = match self {
            Self::Host { .. } => return,
            Self::None => (new(), true),
            Self::Own(own) => {
                let page = new();
                page.write(0, &own[..]);
                (page, false)
            }
        };
        let page = Box::new(page);
        *self = Self::Host { page, clean };
    }
    /// Returns the page in the host, with the bytes of the frame in it.
    fn in_use(&mut self) -> &HostPage {
        let Self::Host { page, clean } = self else {
            unreachable!("the bytes are in the host");
        };
        if std::mem::take(clean) {
            page.write(0, &[0; PAGE_BYTES]);
        }
        page
    }
    /// Returns a copy; `None` if all bytes are zero because none was written.
    fn copied(&self) -> Option<Own> {
        match self {
            Self::Own(page) => Some(page.clone()),
            Self::Host { page, clean: false } => {
                let mut copy = Box::new([0; PAGE_BYTES]);
                page.read(0, &mut copy[..]);
                Some(copy)
            }
            Self::None | Self::Host { .. } => None,
        }
    }
    /// Takes over all bytes.
    fn replace(&mut self, bytes: Option<Own>) {
        match (&mut *self, bytes) {
            (Self::Host { clean, .. }, None) => *clean = true,
            (Self::Host { .. }, Some(bytes)) => self.in_use().write(0, &bytes[..]),
            (_, Some(bytes)) => *self = Self::Own(bytes),
            (_, None) => *self = Self::None,
        }
    }
}

impl PageBytes {
    /// Copies `out.len()` bytes from `offset` on.
    ///
    /// # Panics
    ///
    /// If the bytes leave the page.
    #[inline]
    pub(super) fn read(&self, offset: usize, out: &mut [u8]) {
        self.0.lock().read(offset, out);
    }
    /// Stores all of `bytes` from `offset` on.
    ///
    /// # Panics
    ///
    /// If the bytes leave the page.
    #[inline]
    pub(super) fn write(&self, offset: usize, bytes: &[u8]) {
        self.0.lock().write(offset, bytes);
    }
    /// Does an atomic access of a word, and returns what it was before.
    ///
    /// # Panics
    ///
    /// If the word leaves the page or is not aligned.
    pub(super) fn access(&self, offset: usize, access: &WordAccess) -> u64 {
        access.check(offset);
        // The lock orders the accesses of one frame; those of different frames it does not.
        let sequential = || {
            if access.order == Ordering::SeqCst {
                fence(Ordering::SeqCst);
            }
        };
        sequential();
        let mut held = self.0.lock();
        if let Bytes::Host { clean: false, .. } = &*held {
            return held.in_use().access(offset, access);
        }
        let mut old = [0; 8];
        held.read(offset, &mut old[..access.size]);
        let old = u64::from_le_bytes(old);
        if let Some(new) = access.store_over(old) {
            held.write(offset, &new.to_le_bytes()[..access.size]);
        }
        drop(held);
        sequential();
        old
    }
    /// Gives the bytes an address in the host, in a page that `new` makes if they have none, and
    /// takes them for written from now on.
    pub(super) fn address(&self, new: impl FnOnce() -> HostPage) -> NonNull<u8> {
        let mut held = self.0.lock();
        held.move_to_host(new);
        held.in_use().address()
    }
    /// Returns true if the bytes are the frame's own and in the host: they cannot be moved.
    #[cfg(all(feature = "remote", target_os = "linux"))]
    pub(super) fn has_address(&self) -> bool {
        matches!(&*self.0.lock(), Bytes::Host { clean: false, .. })
    }
    /// Takes over a copy of the contents of another frame; nothing is allocated if the other was
    /// never written.
    pub(super) fn copy_from(&self, other: &Self) {
        let copy = other.0.lock().copied();
        self.0.lock().replace(copy);
    }
    /// Returns true if the bytes are equal. Compares a copy of one, so that two locks are never
    /// held.
    pub(super) fn equals(&self, other: &Self) -> bool {
        let mine = self.0.lock().copied();
        match (mine, &*other.0.lock()) {
            (Some(a), Bytes::Own(b)) => a == *b,
            (a, b) => match (a, b.copied()) {
                (Some(a), Some(b)) => a == b,
                (Some(page), None) | (None, Some(page)) => page.iter().all(|&b| b == 0),
                (None, None) => true,
            },
        }
    }
    /// Returns true if all bytes are zero.
    pub(super) fn is_zero(&self) -> bool {
        match &*self.0.lock() {
            Bytes::Own(page) => page.iter().all(|&b| b == 0),
            other => other
                .copied()
                .is_none_or(|page| page.iter().all(|&b| b == 0)),
        }
    }
    /// Returns true if the frame has been written, or may have been through its address.
    #[cfg(any(test, all(feature = "remote", target_os = "linux")))]
    pub(super) fn is_made(&self) -> bool {
        matches!(
            &*self.0.lock(),
            Bytes::Own(_) | Bytes::Host { clean: false, .. }
        )
    }
    /// Releases the bytes: the frame reads zero again. Memory with an address in the host stays
    /// the frame's: a store through the address that comes too late reaches no other frame.
    pub(super) fn clear(&self) {
        self.0.lock().replace(None);
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{AtomicOp, word::WordAccess},
        HostPage, PageBytes,
    };
    use crate::sync::Ordering::{Relaxed, SeqCst};

    fn read(page: &PageBytes) -> [u8; 2] {
        let mut seen = [9; 2];
        page.read(4, &mut seen);
        seen
    }

    #[test]
    fn bytes_are_the_frames_before_and_after_they_have_an_address() {
        let (page, other) = (PageBytes::default(), PageBytes::default());
        page.write(4, &[1, 2]);
        let at = page.address(HostPage::new);
        assert!(at.addr().get().is_multiple_of(4096));
        assert_eq!((read(&page), page.address(HostPage::new)), ([1, 2], at));
        page.write(5, &[3]);
        other.copy_from(&page);
        assert!(other.equals(&page) && page.equals(&other));
        let add = WordAccess::new(AtomicOp::Add(0x0101_u16), Relaxed);
        for page in [&page, &other] {
            assert_eq!(page.access(4, &add), 0x0301);
            assert_eq!(read(page), [2, 4]);
        }
        page.copy_from(&PageBytes::default());
        assert!(page.is_zero() && page.address(HostPage::new) == at);
    }

    /// A page that is taken for never written is not copied, and not cleared.
    #[test]
    fn bytes_with_an_address_are_taken_for_written() {
        let page = PageBytes::default();
        assert!(!page.is_made());
        let at = page.address(HostPage::new);
        assert!(page.is_made() && page.is_zero());
        page.clear();
        assert!(!page.is_made());
        assert_eq!(page.address(HostPage::new), at, "a frame has one address");
    }

    #[test]
    fn each_access_does_what_it_says() {
        let at = |op| WordAccess::new::<u16>(op, SeqCst);
        let exchange = |current, new| AtomicOp::CompareExchange { current, new };
        for in_host in [false, true] {
            let page = PageBytes::default();
            if in_host {
                page.address(HostPage::new);
            }
            page.write(0, &[0xff; 8]);
            let steps = [
                (AtomicOp::Load, 0xffff),
                (AtomicOp::Add(2), 0xffff),
                (AtomicOp::Or(0x10), 1),
                (AtomicOp::And(0x30), 0x11),
                (exchange(0x11, 5), 0x10),
                (exchange(0x10, 5), 0x10),
                (AtomicOp::Swap(7), 5),
                (AtomicOp::Load, 7),
            ];
            for (op, old) in steps {
                assert_eq!(page.access(2, &at(op)), old, "{op:?}");
            }
            let mut all = [0; 8];
            page.read(0, &mut all);
            assert_eq!(all, [0xff, 0xff, 7, 0, 0xff, 0xff, 0xff, 0xff]);
        }
    }
}
