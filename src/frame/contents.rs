//! The bytes of frames: made on the first write, zero until then, given back when the frame is retired.
//!
//! Each frame's bytes have a lock of their own, held for one copy: threads that race on a page, as guests do, see each
//! other's accesses whole.

#[cfg(all(feature = "remote", target_os = "linux"))]
use super::lent::LendableBytes;
use super::{config::Contents, page_bytes::PageBytes};

/// What is kept for the frames of a chunk.
pub(super) enum Pages {
    None,
    Own(Box<[PageBytes]>),
    #[cfg(all(feature = "remote", target_os = "linux"))]
    Shared(Box<[LendableBytes]>),
}

impl Pages {
    pub(super) fn new(contents: Contents, len: u32) -> Self {
        match contents {
            Contents::None => Self::None,
            Contents::Real => Self::Own((0..len).map(|_| PageBytes::default()).collect()),
            #[cfg(all(feature = "remote", target_os = "linux"))]
            Contents::Shared => Self::Shared((0..len).map(|_| LendableBytes::default()).collect()),
        }
    }
    /// One of them; `None` without contents.
    #[inline]
    pub(super) fn page(&self, nth: usize) -> Option<Page<'_>> {
        match self {
            Self::None => None,
            Self::Own(cells) => Some(Page::Own(&cells[nth])),
            #[cfg(all(feature = "remote", target_os = "linux"))]
            Self::Shared(spots) => Some(Page::Shared(&spots[nth])),
        }
    }
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

/// What is in a frame, wherever it is kept.
#[derive(Clone, Copy)]
pub(super) enum Page<'m> {
    Own(&'m PageBytes),
    #[cfg(all(feature = "remote", target_os = "linux"))]
    Shared(&'m LendableBytes),
}

/// Calls the function of the same name where the page is kept.
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
    pub(super) fn read(self, offset: usize, out: &mut [u8]) {
        wherever!(self.read(offset, out));
    }
    pub(super) fn write(self, offset: usize, bytes: &[u8]) {
        wherever!(self.write(offset, bytes));
    }
    pub(super) fn is_zero(self) -> bool {
        wherever!(self.is_zero())
    }
    /// Back to zero.
    pub(super) fn clear(self) {
        wherever!(self.clear());
    }
    /// Whether anything was written.
    #[cfg(test)]
    pub(super) fn is_made(self) -> bool {
        wherever!(self.is_made())
    }
}
