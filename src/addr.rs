//! Page numbers and address arithmetic. A number *names* a page; it never grants access to one.

mod bytes;
mod virt_addr;

pub(crate) use bytes::by_page;
pub use bytes::chunks;
pub use virt_addr::{VirtAddr, VirtAddrNotValid};

use std::fmt;

/// Bytes in a page.
pub const PAGE_SIZE: u64 = 1 << PAGE_SHIFT;
/// log2 of [`PAGE_SIZE`].
pub const PAGE_SHIFT: u32 = 12;
/// Pages that one leaf table maps (2 MiB): `PTRS_PER_PTE`.
pub const PMD_PAGES: u64 = 512;
/// Pages below one entry of the third level (1 GiB).
pub const PUD_PAGES: u64 = 512 * PMD_PAGES;
/// Pages below one entry of the root (512 GiB).
pub const PGD_PAGES: u64 = 512 * PUD_PAGES;
/// First byte that a process can never map (x86-64, four levels): the space is `[0, TASK_SIZE)`.
pub const TASK_SIZE: u64 = 0x7fff_ffff_f000;
/// [`TASK_SIZE`] in pages.
pub const TASK_PAGES: u64 = TASK_SIZE >> PAGE_SHIFT;

/// Virtual page number inside one address space.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vpn(pub u64);

impl Vpn {
    /// The page that holds byte `addr`.
    #[inline]
    pub const fn containing(addr: u64) -> Self {
        Self(addr >> PAGE_SHIFT)
    }
    /// Address of the page's first byte.
    ///
    /// A page number above `u64::MAX >> 12` has none; it gives the address of the last page that has one. Never that of a
    /// page which an address space could map.
    #[inline]
    pub const fn addr(self) -> u64 {
        const LAST: u64 = u64::MAX >> PAGE_SHIFT;
        (if self.0 < LAST { self.0 } else { LAST }) << PAGE_SHIFT
    }
    /// The page `n` pages above; saturates.
    #[inline]
    #[must_use]
    pub const fn plus(self, n: u64) -> Self {
        Self(self.0.saturating_add(n))
    }
    /// The nearest multiple of `pages` (a power of two) at or below.
    #[inline]
    #[must_use]
    pub const fn align_down(self, pages: u64) -> Self {
        Self(self.0 & !(pages - 1))
    }
    /// The nearest multiple of `pages` (a power of two) at or above; the last one there is if there is none above.
    #[inline]
    #[must_use]
    pub const fn align_up(self, pages: u64) -> Self {
        Self(self.0.saturating_add(pages - 1) & !(pages - 1))
    }
    /// Whether this is a multiple of `pages` (a power of two).
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

/// Physical frame number. Names a frame; no public function turns it into access.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pfn(pub(crate) u32);

impl Pfn {
    /// The number, for tracing and comparison.
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

/// Non-empty half-open range of pages.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct VpnRange {
    start: Vpn,
    end: Vpn,
}

/// `0x1000-0x3000`: bytes, half-open.
impl fmt::Display for VpnRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}-{:#x}", self.start.addr(), self.end.addr())
    }
}

/// Two page numbers of which the second is not above the first: no range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("[{start}, {end}) has no page")]
pub struct EmptyRange {
    /// The page that was to be the first.
    pub start: Vpn,
    /// The page that was to be one past the last.
    pub end: Vpn,
}

impl VpnRange {
    /// Every page number there is, more than any address space has.
    pub const ALL: Self = Self {
        start: Vpn(0),
        end: Vpn(u64::MAX),
    };
    /// `[start, end)`; `None` when empty or reversed.
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
    /// Every page that a process can map: [`TASK_PAGES`] of them.
    pub const TASK: Self = Self {
        start: Vpn(0),
        end: Vpn(TASK_PAGES),
    };
    /// The range of exactly one page. `u64::MAX` is the end of a range and in none: it gives the page below it.
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
    /// First page.
    #[inline]
    pub const fn start(self) -> Vpn {
        self.start
    }
    /// One past the last page.
    #[inline]
    pub const fn end(self) -> Vpn {
        self.end
    }
    /// How many pages; at least 1.
    #[inline]
    pub const fn pages(self) -> u64 {
        self.end.0 - self.start.0
    }
    /// Whether `at` lies inside.
    #[inline]
    pub const fn contains(self, at: Vpn) -> bool {
        self.start.0 <= at.0 && at.0 < self.end.0
    }
    /// Whether all of `other` lies inside.
    #[inline]
    pub const fn covers(self, other: Self) -> bool {
        self.start.0 <= other.start.0 && other.end.0 <= self.end.0
    }
    /// Whether a page is in both.
    #[inline]
    pub const fn overlaps(self, other: Self) -> bool {
        self.start.0 < other.end.0 && other.start.0 < self.end.0
    }
    /// The pages in both.
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
    /// Pages in ascending order.
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

/// The range of exactly that page.
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
        write!(f, "[{:#x}, {:#x})", self.start.addr(), self.end.addr())
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
        assert_eq!(empty.to_string(), "[0x5, 0x5) has no page");
        assert_eq!(VpnRange::from(Vpn(7)), VpnRange::single(Vpn(7)));
    }
}
