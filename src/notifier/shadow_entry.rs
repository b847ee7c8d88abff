//! One established translation in a driver's store, in two words.

use super::translation::{RegTag, Translation};
use crate::{
    addr::{PMD_PAGES, Pfn, Vpn, VpnRange},
    frame::{self, AccessBits},
    sync::{AtomicU64, Ordering},
};

/// An established translation.
///
/// Only a [`Permit`](super::Permit) makes one, and it can be read only through the gate that holds
/// the store. An entry has two words, because a zap walks tables of entries.
pub struct ShadowEntry {
    /// The number of the first page, the bits below, and the tag in the highest bits.
    word: AtomicU64,
    pfn: Pfn,
    generation: u32,
}

/// Set in an entry of a huge page. Page numbers of a process have 36 bits at most.
const HUGE: u64 = 1 << 36;
const WRITABLE: u64 = 1 << 37;
/// Set in an entry that has a reference on each frame.
const HELD: u64 = 1 << 38;
const ACCESSED: u64 = 1 << 39;
const DIRTY: u64 = 1 << 40;
// The bits above are the tag.
const _: () = assert!(DIRTY.trailing_zeros() + 1 + RegTag::BITS == u64::BITS);

impl ShadowEntry {
    pub(super) fn new(translation: Translation, held: bool, used: AccessBits) -> Self {
        let Translation {
            range,
            pfn,
            generation,
            writable,
            tag,
        } = translation;
        debug_assert!(matches!(range.pages(), 1 | PMD_PAGES) && range.start().0 < HUGE);
        let bit = |is: bool, bit: u64| if is { bit } else { 0 };
        let bits = bit(range.pages() > 1, HUGE) | bit(writable, WRITABLE) | bit(held, HELD);
        let bits = bits | bit(used.young, ACCESSED) | bit(used.dirty, DIRTY);
        Self {
            word: AtomicU64::new(range.start().0 | bits | tag.word()),
            pfn,
            generation,
        }
    }
    /// Returns the tag of the registration that the entry belongs to.
    #[inline]
    pub(super) fn tag(&self) -> RegTag {
        RegTag::of_word(self.word())
    }
    /// Takes the reference from the entry: the caller gives it up.
    pub(super) fn take_reference(&mut self) {
        self.word.fetch_and(!HELD, Ordering::Relaxed);
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
    /// Returns the page that the entry translates; the first page of a huge page.
    pub fn vpn(&self) -> Vpn {
        Vpn(self.word() & (HUGE - 1))
    }
    /// Returns the pages that the entry translates: 1 or 512.
    #[inline]
    pub fn range(&self) -> VpnRange {
        let pages = if self.has(HUGE) { PMD_PAGES } else { 1 };
        let first = self.vpn();
        VpnRange::new(first, first.plus(pages)).expect("one page at least")
    }
    /// Returns the frame of the first page.
    pub fn pfn(&self) -> Pfn {
        self.pfn
    }
    /// Returns true if the entry is of a huge page.
    #[inline]
    pub(super) fn is_huge(&self) -> bool {
        self.has(HUGE)
    }
    /// Returns the frames of the pages.
    #[inline]
    pub(super) fn frames(&self) -> impl Iterator<Item = Pfn> {
        let (first, pages) = (self.pfn, if self.is_huge() { frame::HUGE } else { 1 });
        (0..pages).map(move |n| first.nth(n))
    }
    /// Returns the accessed and the dirty bit.
    #[inline]
    pub(super) fn used(&self) -> AccessBits {
        let word = self.word();
        AccessBits {
            young: word & ACCESSED != 0,
            dirty: word & DIRTY != 0,
        }
    }
    /// Returns true if the entry allows writing.
    pub fn is_writable(&self) -> bool {
        self.has(WRITABLE)
    }
    /// Returns true if the entry has a reference on each frame.
    pub fn is_held(&self) -> bool {
        self.has(HELD)
    }
    /// Returns the translation of the entry, for an audit or a TLB.
    #[inline]
    pub fn translation(&self) -> Translation {
        Translation {
            range: self.range(),
            pfn: self.pfn,
            generation: self.generation,
            writable: self.is_writable(),
            tag: self.tag(),
        }
    }
    /// Sets the accessed bit, as a page-table walk of a device does.
    #[inline]
    pub fn set_accessed(&self) {
        self.set(ACCESSED);
    }
    /// Sets the accessed and the dirty bit. The gate reports them to the frame when the entry is
    /// removed.
    #[inline]
    pub fn set_dirty(&self) {
        self.set(ACCESSED | DIRTY);
    }
    /// Returns true if the accessed bit is set.
    pub fn is_accessed(&self) -> bool {
        self.has(ACCESSED)
    }
    /// Returns true if the dirty bit is set.
    pub fn is_dirty(&self) -> bool {
        self.has(DIRTY)
    }
    /// Clears the accessed bit. Returns true if it was set.
    pub fn clear_accessed(&self) -> bool {
        self.word.fetch_and(!ACCESSED, Ordering::Relaxed) & ACCESSED != 0
    }
    /// Forbids writing through the entry, as dirty logging does.
    pub fn write_protect(&self) {
        self.word.fetch_and(!WRITABLE, Ordering::Relaxed);
    }
}

/// # Panics
///
/// If the entry has a reference: a store must hand it back to its gate, which alone can give the
/// reference up.
impl Drop for ShadowEntry {
    fn drop(&mut self) {
        // One panic at a time is enough.
        let lost = self.is_held() && !std::thread::panicking();
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
            .field("held", &self.is_held())
            .field("accessed", &self.is_accessed())
            .field("dirty", &self.is_dirty())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::{AccessBits, PMD_PAGES, Pfn, ShadowEntry, Translation, Vpn, VpnRange};
    use crate::notifier::translation::RegId;

    #[test]
    fn an_entry_is_two_words_and_says_what_it_was_made_of() {
        if !cfg!(any(loom, shuttle)) {
            assert_eq!(size_of::<ShadowEntry>(), 16);
        }
        for (first, pages, writable, held) in [
            (7, 1, false, true),
            ((1 << 36) - PMD_PAGES, PMD_PAGES, true, false),
        ] {
            let translation = Translation {
                range: VpnRange::new(Vpn(first), Vpn(first + pages)).unwrap(),
                pfn: Pfn(9),
                generation: 3,
                writable,
                tag: RegId(u64::MAX).tag(),
            };
            let mut entry = ShadowEntry::new(translation, held, AccessBits::default());
            assert_eq!((entry.translation(), entry.is_held()), (translation, held));
            assert!(!entry.is_accessed() && !entry.is_dirty());
            entry.set_dirty();
            assert!(entry.clear_accessed() && !entry.clear_accessed() && entry.is_dirty());
            entry.write_protect();
            assert!(!entry.is_writable());
            assert_eq!(
                (entry.range(), entry.tag()),
                (translation.range, translation.tag)
            );
            assert_ne!(entry.tag(), RegId(0).tag());
            entry.take_reference();
            assert!(!entry.is_held());
            for (young, dirty) in [(true, false), (true, true)] {
                let used = ShadowEntry::new(translation, false, AccessBits { young, dirty });
                assert_eq!((used.is_accessed(), used.is_dirty()), (young, dirty));
                assert_eq!(used.translation(), translation);
            }
        }
    }
}
