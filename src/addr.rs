//! Page numbers, frame numbers, ranges of pages, and addresses of bytes.
//!
//! A number *names* a page or a frame; it never grants access to one.
//!
//! | file | holds |
//! | --- | --- |
//! | `virt_addr` | the address of a byte that a process can map |
//! | `bytes` | runs of bytes, cut at the boundaries of pages |

mod bytes;
mod virt_addr;

pub use bytes::chunks;
pub(crate) use bytes::{Bytes, by_page, within_page};
pub use virt_addr::{VirtAddr, VirtAddrNotValid};

use std::fmt;

/// The number of bytes in a page.
pub const PAGE_SIZE: u64 = 1 << PAGE_SHIFT;
/// The binary logarithm of [`PAGE_SIZE`].
pub const PAGE_SHIFT: u32 = 12;
/// The number of pages that one leaf table maps, 2 MiB (`PTRS_PER_PTE`).
pub const PMD_PAGES: u64 = 512;
/// The number of pages below one entry of the third level, 1 GiB.
pub const PUD_PAGES: u64 = 512 * PMD_PAGES;
/// The number of pages below one entry of the root, 512 GiB.
pub const PGD_PAGES: u64 = 512 * PUD_PAGES;
/// The first byte that a process can never map (x86-64, four levels): the address space is `[0,
/// TASK_SIZE)`.
pub const TASK_SIZE: u64 = 0x7fff_ffff_f000;
/// The number of pages of an address space: [`TASK_SIZE`] in pages.
pub const TASK_PAGES: u64 = TASK_SIZE >> PAGE_SHIFT;

/// The number of a page in an address space.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Vpn(pub u64);

impl Vpn {
    /// Returns the page that holds byte `addr`.
    #[inline]
    pub const fn containing(addr: u64) -> Self {
        Self(addr >> PAGE_SHIFT)
    }
    /// Returns the address of the page's first byte.
    ///
    /// A page number above `u64::MAX >> 12` has no address; the result is then the address of the
    /// last page that has one. An address space can map neither.
    #[inline]
    pub const fn addr(self) -> u64 {
        const LAST: u64 = u64::MAX >> PAGE_SHIFT;
        (if self.0 < LAST { self.0 } else { LAST }) << PAGE_SHIFT
    }
    /// Returns the page `n` pages above; saturates at the highest number.
    #[inline]
    #[must_use]
    pub const fn plus(self, n: u64) -> Self {
        Self(self.0.saturating_add(n))
    }
    /// Returns the nearest multiple of `pages`, a power of two, at or below.
    #[inline]
    #[must_use]
    pub const fn align_down(self, pages: u64) -> Self {
        Self(self.0 & !(pages - 1))
    }
    /// Returns the nearest multiple of `pages`, a power of two, at or above, or the highest
    /// multiple if there is none above.
    #[inline]
    #[must_use]
    pub const fn align_up(self, pages: u64) -> Self {
        Self(self.0.saturating_add(pages - 1) & !(pages - 1))
    }
    /// Returns true if the number is a multiple of `pages`, a power of two.
    #[inline]
    pub const fn is_aligned(self, pages: u64) -> bool {
        self.0 & (pages - 1) == 0
    }
}

impl fmt::Display for Vpn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Debug for Vpn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vpn:{:#x}", self.0)
    }
}

/// The number of a physical frame. No public function turns it into access to the frame.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Pfn(pub(crate) u32);

impl Pfn {
    /// Returns the number, for tracing and comparison.
    #[inline]
    pub const fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Debug for Pfn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pfn:{:#x}", self.0)
    }
}

/// A range of pages, half-open and not empty.
///
/// # Examples
///
/// ```
/// use emmu::addr::{Vpn, VpnRange};
///
/// let range = VpnRange::try_from(Vpn(3)..Vpn(6))?;
/// assert_eq!(range.pages(), 3);
/// assert!(range.contains(Vpn(5)) && !range.contains(Vpn(6)));
/// assert_eq!(range.intersect(VpnRange::single(Vpn(4))), Some(VpnRange::from(Vpn(4))));
/// assert_eq!(VpnRange::new(Vpn(6), Vpn(6)), None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(try_from = "std::ops::Range<Vpn>", into = "std::ops::Range<Vpn>")
)]
pub struct VpnRange {
    start: Vpn,
    end: Vpn,
}

/// Writes the bytes of the range, half-open: `0x1000-0x3000`.
impl fmt::Display for VpnRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}-{:#x}", self.start.addr(), self.end.addr())
    }
}

/// Two page numbers of which the second is not above the first: no range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{:#x}-{:#x} has no page", .start.addr(), .end.addr())]
pub struct EmptyRange {
    /// The page that was to be the first.
    pub start: Vpn,
    /// The page that was to be one past the last.
    pub end: Vpn,
}

impl VpnRange {
    /// Every page number, more than any address space has.
    pub const ALL: Self = Self {
        start: Vpn(0),
        end: Vpn(u64::MAX),
    };
    /// Makes the range `[start, end)`; `None` if `end` is not above `start`.
    #[inline]
    pub const fn new(start: Vpn, end: Vpn) -> Option<Self> {
        if start.0 < end.0 {
            Some(Self { start, end })
        } else {
            None
        }
    }
    /// Makes the range `[start, end)`, as [`new`](Self::new) does.
    ///
    /// # Errors
    ///
    /// [`EmptyRange`] if `end` is not above `start`.
    #[inline]
    pub const fn try_new(start: Vpn, end: Vpn) -> Result<Self, EmptyRange> {
        match Self::new(start, end) {
            Some(range) => Ok(range),
            None => Err(EmptyRange { start, end }),
        }
    }
    /// Every page that a process can map, [`TASK_PAGES`] pages.
    pub const TASK: Self = Self {
        start: Vpn(0),
        end: Vpn(TASK_PAGES),
    };
    /// Makes the range of exactly one page. No range holds page `u64::MAX`, which can only be an
    /// end; for it the result is the range of the page below.
    #[inline]
    pub const fn single(at: Vpn) -> Self {
        let end = at.plus(1);
        Self {
            start: Vpn(end.0 - 1),
            end,
        }
    }
    /// The 2-MiB block around `at`: the pages that one leaf table maps.
    #[inline]
    pub(crate) const fn block_of(at: Vpn) -> Self {
        let start = at.align_down(PMD_PAGES);
        Self {
            start,
            end: start.plus(PMD_PAGES),
        }
    }
    /// Returns the first page.
    #[inline]
    pub const fn start(self) -> Vpn {
        self.start
    }
    /// Returns the page after the last one.
    #[inline]
    pub const fn end(self) -> Vpn {
        self.end
    }
    /// Returns the number of pages, at least 1.
    #[inline]
    pub const fn pages(self) -> u64 {
        self.end.0 - self.start.0
    }
    /// Returns true if the range holds the page.
    #[inline]
    pub const fn contains(self, at: Vpn) -> bool {
        self.start.0 <= at.0 && at.0 < self.end.0
    }
    /// Returns true if the range holds every page of `other`.
    #[inline]
    pub const fn covers(self, other: Self) -> bool {
        self.start.0 <= other.start.0 && other.end.0 <= self.end.0
    }
    /// Returns true if a page is in both ranges.
    #[inline]
    pub const fn overlaps(self, other: Self) -> bool {
        self.start.0 < other.end.0 && other.start.0 < self.end.0
    }
    /// Returns the pages that are in both ranges.
    #[inline]
    pub const fn intersect(self, other: Self) -> Option<Self> {
        let start = if self.start.0 > other.start.0 {
            self.start
        } else {
            other.start
        };
        let end = if self.end.0 < other.end.0 {
            self.end
        } else {
            other.end
        };
        Self::new(start, end)
    }
    /// Iterates over the pages in ascending order.
    #[inline]
    pub fn iter(self) -> impl DoubleEndedIterator<Item = Vpn> {
        (self.start.0..self.end.0).map(Vpn)
    }
}

/// The pages of a range in ascending order.
#[derive(Clone, Debug)]
pub struct Pages(std::ops::Range<u64>);

impl Iterator for Pages {
    type Item = Vpn;
    #[inline]
    fn next(&mut self) -> Option<Vpn> {
        self.0.next().map(Vpn)
    }
    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl DoubleEndedIterator for Pages {
    #[inline]
    fn next_back(&mut self) -> Option<Vpn> {
        self.0.next_back().map(Vpn)
    }
}

impl std::iter::FusedIterator for Pages {}

impl IntoIterator for VpnRange {
    type Item = Vpn;
    type IntoIter = Pages;
    #[inline]
    fn into_iter(self) -> Pages {
        Pages(self.start.0..self.end.0)
    }
}

/// Makes the range of exactly one page.
impl From<Vpn> for VpnRange {
    #[inline]
    fn from(at: Vpn) -> Self {
        Self::single(at)
    }
}

impl From<VpnRange> for std::ops::Range<Vpn> {
    #[inline]
    fn from(range: VpnRange) -> Self {
        range.start..range.end
    }
}

impl TryFrom<std::ops::Range<Vpn>> for VpnRange {
    type Error = EmptyRange;
    #[inline]
    fn try_from(pages: std::ops::Range<Vpn>) -> Result<Self, EmptyRange> {
        Self::try_new(pages.start, pages.end)
    }
}

impl fmt::Debug for VpnRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::{EmptyRange, Vpn, VpnRange};

    #[test]
    fn a_range_is_made_of_pages_and_gives_them_back() {
        let range = VpnRange::try_from(Vpn(3)..Vpn(5)).unwrap();
        assert_eq!(range.into_iter().collect::<Vec<_>>(), [Vpn(3), Vpn(4)]);
        assert_eq!(range.into_iter().next_back(), Some(Vpn(4)));
        assert_eq!(std::ops::Range::from(range), Vpn(3)..Vpn(5));
        let (start, end) = (Vpn(5), Vpn(5));
        let empty = EmptyRange { start, end };
        assert_eq!(VpnRange::try_new(start, end), Err(empty));
        assert_eq!(empty.to_string(), "0x5000-0x5000 has no page");
        assert_eq!(VpnRange::from(Vpn(7)), VpnRange::single(Vpn(7)));
    }
}
