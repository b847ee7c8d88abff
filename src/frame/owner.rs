//! Who has a frame, and where in him: `folio->mapping` and `folio->index` in one word.

/// A node of anonymous memory or a memory object, by the number that it is registered under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct OwnerId(pub(crate) u32);

/// The frame is page `index` of owner `id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) id: OwnerId,
    pub(crate) index: u64,
}

const INDEX_BITS: u32 = 36;
/// Page offsets are below this: 256 TiB.
pub(crate) const MAX_INDEX: u64 = 1 << INDEX_BITS;
/// Owners are numbered from 1 to this.
pub(crate) const MAX_ID: u32 = (1 << 28) - 1;

/// Index of a page that an object shows at every hole; no object has so many pages.
pub(crate) const SPARSE_INDEX: u64 = MAX_INDEX - 1;

impl Owner {
    pub(super) fn word(self) -> u64 {
        debug_assert!(self.index < MAX_INDEX && self.id.0 <= MAX_ID);
        u64::from(self.id.0) << INDEX_BITS | self.index
    }
    #[allow(clippy::cast_possible_truncation)]
    pub(super) fn from_word(word: u64) -> Option<Self> {
        (word != 0).then_some(Self {
            id: OwnerId((word >> INDEX_BITS) as u32),
            index: word & (MAX_INDEX - 1),
        })
    }
}
