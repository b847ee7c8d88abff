//! Numbers of frames: the zero pages, and the blocks of 512 frames that huge pages are made of.

use crate::addr::{PAGE_SIZE, PMD_PAGES, Pfn};

/// The number of bytes in a frame.
#[allow(clippy::cast_possible_truncation)]
pub(super) const PAGE_BYTES: usize = PAGE_SIZE as usize;

/// The zero page: frame 0, never counted, never freed.
pub(super) const ZERO: Pfn = Pfn(0);

/// The number of frames in a huge page.
#[allow(clippy::cast_possible_truncation)]
pub(crate) const HUGE: u32 = PMD_PAGES as u32;

/// The number of frames in the smallest folio of private memory, of 16 KiB.
pub(super) const LEAST_FOLIO: u32 = 4;

/// The first frame of the huge zero page: it has no memory, and is never counted.
pub(super) const HUGE_ZERO: Pfn = Pfn(1 << 29);

impl Pfn {
    /// Returns true for the zero page and for all parts of the huge zero page.
    pub(crate) fn is_zero(self) -> bool {
        self.0 == 0 || self >= HUGE_ZERO
    }
    /// Returns the first frame of the aligned block of 512 that the frame lies in.
    pub(crate) fn head(self) -> Self {
        Self(self.0 & !(HUGE - 1))
    }
    /// Returns the number of the frame `n` above.
    pub(crate) fn nth(self, n: u32) -> Self {
        Self(self.0 + n)
    }
}
