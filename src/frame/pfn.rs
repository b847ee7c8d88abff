//! Numbers of frames: the zero pages, and the 512 frames in a row that a huge page is made of.

use crate::addr::{PAGE_SIZE, PMD_PAGES, Pfn};

/// Bytes in a frame.
#[allow(clippy::cast_possible_truncation)]
pub(super) const PAGE_BYTES: usize = PAGE_SIZE as usize;

/// The zero page: frame 0, never counted, never freed.
pub(super) const ZERO: Pfn = Pfn(0);

/// Frames of a huge page.
#[allow(clippy::cast_possible_truncation)]
pub(crate) const HUGE: u32 = PMD_PAGES as u32;

/// First frame of the huge zero page: it has no memory, and is never counted.
pub(super) const HUGE_ZERO: Pfn = Pfn(1 << 29);

impl Pfn {
    /// The zero page, or a part of the huge one.
    pub(crate) fn is_zero(self) -> bool {
        self.0 == 0 || self >= HUGE_ZERO
    }
    /// First frame of the huge page that this one would be of.
    pub(crate) fn head(self) -> Self {
        Self(self.0 & !(HUGE - 1))
    }
    /// The `n`th frame after this.
    pub(crate) fn nth(self, n: u32) -> Self {
        Self(self.0 + n)
    }
}
