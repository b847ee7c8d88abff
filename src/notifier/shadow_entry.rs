//! One established translation in a driver's store.

use super::translation::{Brand, Translation};
use crate::{
    addr::{PMD_PAGES, Pfn, Vpn, VpnRange},
    sync::{AtomicU64, Ordering},
};

/// One established translation. Made only by a [`Permit`](super::Permit), and readable only through the gate that
/// holds the store. Two words: tables of them are what a zap walks.
pub struct ShadowEntry {
    /// The number of the first page, and above it the bits below.
    word: AtomicU64,
    pfn: Pfn,
    generation: u32,
}

/// Page numbers of a process have 36 bits at the most.
const HUGE: u64 = 1 << 36;
const WRITABLE: u64 = 1 << 37;
/// A reference on each frame goes with the entry.
const PINNED: u64 = 1 << 38;
const ACCESSED: u64 = 1 << 39;
const DIRTY: u64 = 1 << 40;
// Above is the brand.
const _: () = assert!(DIRTY.trailing_zeros() + 1 + Brand::BITS == u64::BITS);

impl ShadowEntry {
    pub(super) fn new(translation: Translation, pinned: bool) -> Self {
        let Translation {
            range,
            pfn,
            generation,
            writable,
            brand,
        } = translation;
        debug_assert!(matches!(range.pages(), 1 | PMD_PAGES) && range.start().0 < HUGE);
        let bit = |is: bool, bit: u64| if is { bit } else { 0 };
        let bits = bit(range.pages() > 1, HUGE) | bit(writable, WRITABLE) | bit(pinned, PINNED);
        Self {
            word: AtomicU64::new(range.start().0 | bits | brand.word()),
            pfn,
            generation,
        }
    }
    /// Whose it is.
    #[inline]
    pub(super) fn brand(&self) -> Brand {
        Brand::of_word(self.word())
    }
    /// The reference is given up with something else than this entry.
    pub(super) fn take_reference(&mut self) {
        self.word.fetch_and(!PINNED, Ordering::Relaxed);
    }
    #[inline]
    fn word(&self) -> u64 {
        self.word.load(Ordering::Relaxed)
    }
    #[inline]
    fn has(&self, bits: u64) -> bool {
        self.word() & bits != 0
    }
    #[inline]
    fn set(&self, bits: u64) {
        if self.word() & bits != bits {
            self.word.fetch_or(bits, Ordering::Relaxed);
        }
    }
    /// The page that it translates; the first one of a huge page.
    pub fn vpn(&self) -> Vpn {
        Vpn(self.word() & (HUGE - 1))
    }
    /// The pages that it translates: one, or 512.
    #[inline]
    pub fn range(&self) -> VpnRange {
        let pages = if self.has(HUGE) { PMD_PAGES } else { 1 };
        let first = self.vpn();
        VpnRange::new(first, first.plus(pages)).expect("one page at least")
    }
    /// The frame that it leads to; the first of a huge page.
    pub fn pfn(&self) -> Pfn {
        self.pfn
    }
    /// Whether it may be written through.
    pub fn is_writable(&self) -> bool {
        self.has(WRITABLE)
    }
    /// Whether a reference on the frame goes with it.
    pub fn is_pinned(&self) -> bool {
        self.has(PINNED)
    }
    /// All of it, as an audit or a TLB wants it.
    #[inline]
    pub fn translation(&self) -> Translation {
        Translation {
            range: self.range(),
            pfn: self.pfn,
            generation: self.generation,
            writable: self.is_writable(),
            brand: self.brand(),
        }
    }
    /// The accessed bit, as a page-table walk of the device sets it.
    #[inline]
    pub fn set_accessed(&self) {
        self.set(ACCESSED);
    }
    /// Accessed and dirty bit. The gate passes it on to the frame when the entry goes.
    #[inline]
    pub fn set_dirty(&self) {
        self.set(ACCESSED | DIRTY);
    }
    /// Whether the accessed bit is set.
    pub fn is_accessed(&self) -> bool {
        self.has(ACCESSED)
    }
    /// Whether the dirty bit is set.
    pub fn is_dirty(&self) -> bool {
        self.has(DIRTY)
    }
    /// Clears the accessed bit; whether it was set.
    pub fn clear_accessed(&self) -> bool {
        self.word.fetch_and(!ACCESSED, Ordering::Relaxed) & ACCESSED != 0
    }
    /// Takes the right to write away, as dirty logging does.
    pub fn write_protect(&self) {
        self.word.fetch_and(!WRITABLE, Ordering::Relaxed);
    }
}

/// # Panics
///
/// If a reference goes with it: an entry is handed back to its gate, which gives that up. Nobody can any more.
impl Drop for ShadowEntry {
    fn drop(&mut self) {
        // One panic is enough.
        let lost = self.is_pinned() && !std::thread::panicking();
        assert!(
            !lost,
            "a store dropped {self:?} rather than hand it back: its frames are lost"
        );
    }
}

impl std::fmt::Debug for ShadowEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShadowEntry")
            .field("translation", &self.translation())
            .field("pinned", &self.is_pinned())
            .field("accessed", &self.is_accessed())
            .field("dirty", &self.is_dirty())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::{PMD_PAGES, Pfn, ShadowEntry, Translation, Vpn, VpnRange};
    use crate::notifier::translation::RegId;

    #[test]
    fn an_entry_is_two_words_and_says_what_it_was_made_of() {
        if !cfg!(any(loom, shuttle)) {
            assert_eq!(size_of::<ShadowEntry>(), 16);
        }
        for (first, pages, writable, pinned) in [
            (7, 1, false, true),
            ((1 << 36) - PMD_PAGES, PMD_PAGES, true, false),
        ] {
            let translation = Translation {
                range: VpnRange::new(Vpn(first), Vpn(first + pages)).unwrap(),
                pfn: Pfn(9),
                generation: 3,
                writable,
                brand: RegId(u64::MAX).brand(),
            };
            let mut entry = ShadowEntry::new(translation, pinned);
            assert_eq!(
                (entry.translation(), entry.is_pinned()),
                (translation, pinned)
            );
            assert!(!entry.is_accessed() && !entry.is_dirty());
            entry.set_dirty();
            assert!(entry.clear_accessed() && !entry.clear_accessed() && entry.is_dirty());
            entry.write_protect();
            assert!(!entry.is_writable());
            assert_eq!(
                (entry.range(), entry.brand()),
                (translation.range, translation.brand)
            );
            assert_ne!(entry.brand(), RegId(0).brand());
            entry.take_reference();
            assert!(!entry.is_pinned());
        }
    }
}
