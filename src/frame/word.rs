//! Whole accesses of aligned words, and what an atomic one does.

use super::pfn::PAGE_BYTES;
use crate::sync::Ordering;
use std::fmt::Debug;

mod sealed {
    pub trait Sealed {
        /// The number of bytes.
        const SIZE: usize;
        /// Returns the value in the low bytes of a word.
        fn from_low(word: u64) -> Self;
        /// Returns the word that has the value in its low bytes.
        fn into_low(self) -> u64;
    }
}
use sealed::Sealed;

/// A value that is loaded and stored whole: `u8`, `u16`, `u32`, `u64`. In memory it is
/// little-endian.
pub trait Word: Sealed + Copy + Debug + Eq + Send + Sync + 'static {}

macro_rules! words {
    ($($word:ty)*) => { $(
        impl Sealed for $word {
            const SIZE: usize = size_of::<$word>();
            #[allow(clippy::cast_possible_truncation, reason = "the low bytes are meant")]
            fn from_low(word: u64) -> Self {
                word as Self
            }
            fn into_low(self) -> u64 {
                u64::from(self)
            }
        }
        impl Word for $word {}
    )* };
}
words!(u8 u16 u32 u64);

/// An atomic access of a word. Its result is the value that the word had before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AtomicOp<T> {
    /// Loads; the only access that needs no right to write.
    Load,
    /// Stores a value, whatever was there.
    Swap(T),
    /// Stores a value if the word has the one that is expected. It did if that is the result. Needs
    /// the right to write in any case, as on x86-64.
    CompareExchange {
        /// The value that is expected.
        current: T,
        /// The value to store.
        new: T,
    },
    /// Adds, and wraps at the end of the range.
    Add(T),
    /// Keeps the bits that are set in the value.
    And(T),
    /// Sets the bits that are set in the value.
    Or(T),
}

/// An atomic access of a word of any size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WordAccess {
    pub(super) size: usize,
    op: AtomicOp<u64>,
    pub(super) order: Ordering,
}

impl WordAccess {
    pub(crate) fn new<T: Word>(op: AtomicOp<T>, order: Ordering) -> Self {
        let op = match op {
            AtomicOp::Load => AtomicOp::Load,
            AtomicOp::Swap(new) => AtomicOp::Swap(new.into_low()),
            AtomicOp::CompareExchange { current, new } => AtomicOp::CompareExchange {
                current: current.into_low(),
                new: new.into_low(),
            },
            AtomicOp::Add(n) => AtomicOp::Add(n.into_low()),
            AtomicOp::And(bits) => AtomicOp::And(bits.into_low()),
            AtomicOp::Or(bits) => AtomicOp::Or(bits.into_low()),
        };
        let size = T::SIZE;
        Self { size, op, order }
    }
    /// Returns true if nothing is ever stored.
    pub(crate) fn is_load(&self) -> bool {
        self.op == AtomicOp::Load
    }
    /// Returns true if a word of the size lies at `at`, a multiple of its size.
    pub(crate) fn is_aligned(&self, at: u64) -> bool {
        at.is_multiple_of(self.size as u64)
    }
    /// # Panics
    ///
    /// If the word leaves the page, or does not lie at a multiple of its size.
    #[track_caller]
    pub(super) fn check(&self, offset: usize) {
        assert!(self.is_aligned(offset as u64), "a word is not aligned");
        assert!(offset < PAGE_BYTES, "a word leaves its page");
    }
    /// Returns the word to store in place of `old`; `None` if nothing is stored.
    pub(super) fn store_over(&self, old: u64) -> Option<u64> {
        let new = match self.op {
            AtomicOp::Load => return None,
            AtomicOp::Swap(new) => new,
            AtomicOp::CompareExchange { current, new } => return (old == current).then_some(new),
            AtomicOp::Add(n) => old.wrapping_add(n),
            AtomicOp::And(bits) => old & bits,
            AtomicOp::Or(bits) => old | bits,
        };
        Some(new & (u64::MAX >> (64 - 8 * self.size)))
    }
    /// Returns the ordering of the access where it only loads.
    pub(super) fn load_order(&self) -> Ordering {
        match self.order {
            Ordering::Relaxed | Ordering::Release => Ordering::Relaxed,
            Ordering::SeqCst => Ordering::SeqCst,
            _ => Ordering::Acquire,
        }
    }
}
