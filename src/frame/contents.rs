//! The place of a frame's bytes: none, in this process alone, or lendable to other processes.
//!
//! The bytes of each frame have a lock of their own, held for one copy: threads that race on a
//! page, as guests do, see each other's accesses whole. The bytes are allocated by the first write,
//! read zero until then, and are released when the frame is retired.

#[cfg(all(feature = "remote", target_os = "linux"))]
use super::lent::LendableBytes;
use super::{config::Contents, host_page::HostPage, page_bytes::PageBytes, word::WordAccess};
use std::ptr::NonNull;

/// The contents of all frames of a chunk.
pub(super) enum Pages {
    None,
    Own(Box<[PageBytes]>),
    #[cfg(all(feature = "remote", target_os = "linux"))]
    Shared(Box<[LendableBytes]>),
}

impl Pages {
    /// Returns the contents of `len` frames, all zero.
    pub(super) fn new(contents: Contents, len: u32) -> Self {
        match contents {
            Contents::None => Self::None,
            Contents::Real => Self::Own((0..len).map(|_| PageBytes::default()).collect()),
            #[cfg(all(feature = "remote", target_os = "linux"))]
            Contents::Shared => Self::Shared((0..len).map(|_| LendableBytes::default()).collect()),
        }
    }
    /// Returns the contents of frame `nth` of the chunk; `None` without contents.
    #[inline]
    pub(super) fn page(&self, nth: usize) -> Option<Page<'_>> {
        match self {
            Self::None => None,
            Self::Own(cells) => Some(Page::Own(&cells[nth])),
            #[cfg(all(feature = "remote", target_os = "linux"))]
            Self::Shared(spots) => Some(Page::Shared(&spots[nth])),
        }
    }
    /// Returns the bytes of metadata.
    #[cfg(test)]
    pub(super) fn overhead(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Own(cells) => size_of_val(&**cells),
            #[cfg(all(feature = "remote", target_os = "linux"))]
            Self::Shared(spots) => size_of_val(&**spots),
        }
    }
}

/// The contents of one frame, wherever they lie.
#[derive(Clone, Copy)]
pub(super) enum Page<'m> {
    Own(&'m PageBytes),
    #[cfg(all(feature = "remote", target_os = "linux"))]
    Shared(&'m LendableBytes),
}

/// Calls the method of this name on either kind of contents.
macro_rules! wherever {
    ($page:ident . $f:ident ( $($x:expr),* )) => {
        match $page {
            Page::Own(cell) => cell.$f($($x),*),
            #[cfg(all(feature = "remote", target_os = "linux"))]
            Page::Shared(spot) => spot.$f($($x),*),
        }
    };
}

impl Page<'_> {
    /// Copies bytes of the frame out.
    #[inline]
    pub(super) fn read(self, offset: usize, out: &mut [u8]) {
        wherever!(self.read(offset, out));
    }
    /// Stores bytes into the frame.
    #[inline]
    pub(super) fn write(self, offset: usize, bytes: &[u8]) {
        wherever!(self.write(offset, bytes));
    }
    /// Does an atomic access of a word, and returns what it was before.
    pub(super) fn access(self, offset: usize, access: &WordAccess) -> u64 {
        wherever!(self.access(offset, access))
    }
    /// Gives the bytes an address in this process, in a page that `new` makes if they have none;
    /// `None` while they are lent.
    pub(super) fn address(self, new: impl FnOnce() -> HostPage) -> Option<NonNull<u8>> {
        match self {
            Page::Own(cell) => Some(cell.address(new)),
            #[cfg(all(feature = "remote", target_os = "linux"))]
            Page::Shared(spot) => spot.address(new),
        }
    }
    /// Returns true if all bytes are zero.
    pub(super) fn is_zero(self) -> bool {
        wherever!(self.is_zero())
    }
    /// Releases the bytes: the frame reads zero again.
    pub(super) fn clear(self) {
        wherever!(self.clear());
    }
    /// Returns true if the frame has been written.
    #[cfg(test)]
    pub(super) fn is_made(self) -> bool {
        wherever!(self.is_made())
    }
}
