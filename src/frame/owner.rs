//! The owner of a frame and the frame's index there, in one word: `folio->mapping` and
//! `folio->index`.

/// The registered number of an owner: a node of anonymous memory, or a memory object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct OwnerId(pub(crate) u32);

/// The owner of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    /// The owner's number.
    pub(crate) id: OwnerId,
    /// The page of the owner that the frame is.
    pub(crate) index: u64,
}

/// The bits of the word that hold the index.
const INDEX_BITS: u32 = 36;
/// The bound of page indices: 256 TiB in pages.
pub(crate) const MAX_INDEX: u64 = 1 << INDEX_BITS;
/// The highest number of an owner; the lowest is 1.
pub(crate) const MAX_ID: u32 = (1 << 28) - 1;

/// The index of the page that an object shows in every hole; no object has that many pages.
pub(crate) const SPARSE_INDEX: u64 = MAX_INDEX - 1;

/// The index of every merged page: it is no one page of its owner.
pub(crate) const MERGED_INDEX: u64 = MAX_INDEX - 2;

impl Owner {
    /// Packs the owner into a word, which is not 0 as numbers begin at 1.
    pub(super) fn word(self) -> u64 {
        debug_assert!(self.index < MAX_INDEX && self.id.0 <= MAX_ID);
        u64::from(self.id.0) << INDEX_BITS | self.index
    }
    /// Unpacks an owner; `None` for the word 0.
    #[allow(clippy::cast_possible_truncation)]
    pub(super) fn from_word(word: u64) -> Option<Self> {
        (word != 0).then_some(Self {
            id: OwnerId((word >> INDEX_BITS) as u32),
            index: word & (MAX_INDEX - 1),
        })
    }
}
