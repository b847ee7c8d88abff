//! The bytes of frames: made on the first write, zero until then, given back when the frame is retired.
//!
//! Each frame's bytes have a lock of their own, held for one copy: threads that race on a page, as guests do, see each
//! other's accesses whole.

#[cfg(all(feature = "remote", target_os = "linux"))]
use super::lent::Spot;
use super::{PhysMem, arena::ZERO};
use crate::{
    addr::{PAGE_SIZE, Pfn},
    sync::Mutex,
};

#[allow(clippy::cast_possible_truncation)]
pub(super) const LEN: usize = PAGE_SIZE as usize;

/// Whether frames have contents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Contents {
    /// Real 4-KiB contents, made on the first write.
    #[default]
    Real,
    /// The same, and frames can be lent to other processes of the host: XPmem partitions there. While one is, its bytes lie
    /// in memory that these processes have mapped; each byte is whole, as on hardware, and no more than that.
    #[cfg(all(feature = "remote", target_os = "linux"))]
    Shared,
    /// None: reads give zeros, writes are lost. For very large spaces.
    None,
}

/// Size and kind of a machine's memory. `Default` is 256 MiB with contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemConfig {
    /// Frames of 4 KiB, the zero page not counted; at most 2^28.
    pub frames: u32,
    /// Whether they have contents.
    pub contents: Contents,
    /// Slots of a page each on the swap device; 0: there is none.
    pub swap: u32,
}

impl Default for MemConfig {
    fn default() -> Self {
        Self {
            frames: 65536,
            contents: Contents::Real,
            swap: 0,
        }
    }
}

/// What a read of a free frame gives in debug builds, so that a number kept too long shows.
const POISON: u8 = 0x6b;

/// What is kept for the frames of a chunk.
pub(super) enum Pages {
    None,
    Own(Box<[Cell]>),
    #[cfg(all(feature = "remote", target_os = "linux"))]
    Shared(Box<[Spot]>),
}

impl Pages {
    pub(super) fn new(contents: Contents, len: u32) -> Self {
        match contents {
            Contents::None => Self::None,
            Contents::Real => Self::Own((0..len).map(|_| Cell::default()).collect()),
            #[cfg(all(feature = "remote", target_os = "linux"))]
            Contents::Shared => Self::Shared((0..len).map(|_| Spot::default()).collect()),
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
    Own(&'m Cell),
    #[cfg(all(feature = "remote", target_os = "linux"))]
    Shared(&'m Spot),
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
    fn read(self, offset: usize, out: &mut [u8]) {
        wherever!(self.read(offset, out));
    }
    fn write(self, offset: usize, bytes: &[u8]) {
        wherever!(self.write(offset, bytes));
    }
    fn is_zero(self) -> bool {
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

/// Contents of one frame; none: all zero.
#[derive(Default)]
pub(super) struct Cell(Mutex<Option<Box<[u8; LEN]>>>);

impl Cell {
    /// Copies `out.len()` bytes from `offset` on.
    ///
    /// # Panics
    ///
    /// If the bytes leave the page.
    pub(super) fn read(&self, offset: usize, out: &mut [u8]) {
        match &*self.0.lock() {
            Some(page) => out.copy_from_slice(&page[offset..offset + out.len()]),
            None => {
                assert!(offset + out.len() <= LEN, "a read leaves its page");
                out.fill(0);
            }
        }
    }
    /// Stores all of `bytes` from `offset` on.
    ///
    /// # Panics
    ///
    /// If the bytes leave the page.
    pub(super) fn write(&self, offset: usize, bytes: &[u8]) {
        let mut held = self.0.lock();
        let page = held.get_or_insert_with(|| Box::new([0; LEN]));
        page[offset..offset + bytes.len()].copy_from_slice(bytes);
    }
    /// Takes over the contents of another frame.
    pub(super) fn copy_from(&self, other: &Self) {
        let copy = other.0.lock().clone();
        *self.0.lock() = copy;
    }
    /// Whether the bytes are the same; a copy of the one is compared, so that never two locks are held.
    pub(super) fn equals(&self, other: &Self) -> bool {
        let mine = self.0.lock().clone();
        match (mine, &*other.0.lock()) {
            (Some(a), Some(b)) => a == *b,
            (None, None) => true,
            (Some(page), None) => page.iter().all(|&b| b == 0),
            (None, Some(page)) => page.iter().all(|&b| b == 0),
        }
    }
    /// Whether all bytes are zero.
    pub(super) fn is_zero(&self) -> bool {
        match &*self.0.lock() {
            Some(page) => page.iter().all(|&b| b == 0),
            None => true,
        }
    }
    /// Whether anything was written.
    #[cfg(any(test, all(feature = "remote", target_os = "linux")))]
    pub(super) fn is_made(&self) -> bool {
        self.0.lock().is_some()
    }
    /// Back to zero.
    pub(super) fn clear(&self) {
        drop(self.0.lock().take());
    }
}

impl PhysMem {
    /// Copies bytes of a frame into `out`.
    #[inline]
    pub(crate) fn read(&self, pfn: Pfn, offset: usize, out: &mut [u8]) {
        let pfn = if pfn.is_zero() { ZERO } else { pfn };
        let Some(page) = self.page(pfn) else {
            return out.fill(0);
        };
        page.read(offset, out);
        if cfg!(debug_assertions) && pfn != ZERO && self.refcount(pfn) == 0 {
            out.fill(POISON);
        }
    }
    /// Stores bytes into a frame.
    ///
    /// # Panics
    ///
    /// If it is the zero page, in release builds too: every process would read what was written.
    pub(crate) fn write(&self, pfn: Pfn, offset: usize, bytes: &[u8]) {
        assert!(!pfn.is_zero(), "the zero page is written");
        if let Some(page) = self.page(pfn) {
            page.write(offset, bytes);
        }
    }
    /// Whether the frame holds nothing but zeros; unknown, so `false`, without contents.
    pub(crate) fn is_unused(&self, pfn: Pfn) -> bool {
        self.page(pfn).is_some_and(Page::is_zero)
    }
    /// Whether two frames hold the same bytes; unknown, so `false`, without contents.
    pub(crate) fn equal(&self, a: Pfn, b: Pfn) -> bool {
        match (self.page(a), self.page(b)) {
            (Some(Page::Own(a)), Some(Page::Own(b))) => a.equals(b),
            #[cfg(all(feature = "remote", target_os = "linux"))]
            (Some(Page::Shared(a)), Some(Page::Shared(b))) => a.equals(b),
            _ => false,
        }
    }
    /// Gives `to` the contents of `from`.
    ///
    /// # Panics
    ///
    /// As [`write`](Self::write).
    pub(crate) fn copy(&self, from: Pfn, to: Pfn) {
        assert!(to != ZERO, "the zero page is written");
        match (self.page(from), self.page(to)) {
            (Some(Page::Own(from)), Some(Page::Own(to))) => to.copy_from(from),
            #[cfg(all(feature = "remote", target_os = "linux"))]
            (Some(Page::Shared(from)), Some(Page::Shared(to))) => to.copy_from(from),
            _ => {}
        }
    }
}
