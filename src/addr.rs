//! Page numbers and address arithmetic. A number *names* a page; it never grants access to one.

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

impl fmt::Debug for VpnRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{:#x}, {:#x})", self.start.addr(), self.end.addr())
    }
}

/// Page and offset of the bytes `[addr, addr + len)` if they lie in one.
#[inline]
#[allow(clippy::cast_possible_truncation)]
fn within_page(addr: u64, len: usize) -> Option<(Vpn, usize)> {
    let offset = (addr % PAGE_SIZE) as usize;
    let fits = len.wrapping_sub(1) < PAGE_SIZE as usize - offset;
    fits.then(|| (Vpn::containing(addr), offset))
}

/// Bytes to load into, or to store.
pub(crate) trait Bytes: Sized {
    /// How many.
    fn count(&self) -> usize;
    /// The first `n`, and the rest.
    fn cut(self, n: usize) -> (Self, Self);
}

impl Bytes for &[u8] {
    #[inline]
    fn count(&self) -> usize {
        self.len()
    }
    fn cut(self, n: usize) -> (Self, Self) {
        self.split_at(n)
    }
}

impl Bytes for &mut [u8] {
    #[inline]
    fn count(&self) -> usize {
        self.len()
    }
    fn cut(self, n: usize) -> (Self, Self) {
        self.split_at_mut(n)
    }
}

/// Runs `f` on the parts of `bytes`, which stand for those from `addr` on, page by page: page, offset in it, part. Ends with the
/// first error.
///
/// Most accesses lie in one page, and have nothing to cut: `f` becomes part of the caller for them.
#[inline(always)]
pub(crate) fn by_page<B: Bytes, E>(
    addr: u64,
    bytes: B,
    mut f: impl FnMut(Vpn, usize, B) -> Result<(), E>,
) -> Result<(), E> {
    match within_page(addr, bytes.count()) {
        Some((page, offset)) => f(page, offset, bytes),
        None => across_pages(addr, bytes, &mut f),
    }
}
#[cold]
fn across_pages<B: Bytes, E>(
    addr: u64,
    bytes: B,
    f: &mut dyn FnMut(Vpn, usize, B) -> Result<(), E>,
) -> Result<(), E> {
    let mut rest = bytes;
    for (page, offset, n) in chunks(addr, rest.count()) {
        let (part, tail) = rest.cut(n);
        f(page, offset, part)?;
        rest = tail;
    }
    Ok(())
}

/// Cuts the bytes `[addr, addr + len)` at page boundaries: page, offset in it, bytes. Nothing lies beyond the top of the
/// 64-bit space: what would wrap is counted to the last page, which is never mapped.
#[allow(clippy::cast_possible_truncation)]
pub fn chunks(addr: u64, len: usize) -> impl Iterator<Item = (Vpn, usize, usize)> {
    let mut at = Some(addr);
    let mut left = len;
    std::iter::from_fn(move || {
        if left == 0 {
            return None;
        }
        let from = at.unwrap_or(u64::MAX);
        let offset = (from % PAGE_SIZE) as usize;
        let n = left.min(PAGE_SIZE as usize - offset);
        left -= n;
        at = from.checked_add(n as u64);
        Some((Vpn::containing(from), offset, n))
    })
}
