//! The flags of a frame: everything known of a frame but its counts and its owner.

use bitflags::bitflags;

bitflags! {
    /// Page flags, with Linux's names.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct FrameFlags: u16 {
        /// Written since it was last clean.
        const DIRTY = 1;
        /// Accessed through an external MMU since the last look.
        const ACCESSED = 1 << 1;
        /// Mapped by an external MMU that keeps its own reverse map.
        const EXPORTED = 1 << 2;
        /// Private anonymous memory.
        const ANON = 1 << 3;
        /// Private anonymous memory that a single entry maps: a store needs no copy.
        const ANON_EXCLUSIVE = 1 << 4;
        /// Reclaimed to swap, not to a file.
        const SWAP_BACKED = 1 << 5;
        /// On a list of reclaim.
        const LRU = 1 << 6;
        /// On the active list of its kind.
        const ACTIVE = 1 << 7;
        /// Locked by a thread: see [`FrameLock`](super::FrameLock).
        const LOCKED = 1 << 8;
        /// Chosen by reclaim, and given up once its store has it; or marked by read-ahead, for a
        /// program that reads on. Fault-around does not map it.
        const RECLAIM = 1 << 9;
        /// Found in use once by reclaim.
        const REFERENCED = 1 << 10;
        /// Locked in memory by `mlock`.
        const UNEVICTABLE = 1 << 11;
        /// A thread waits for the lock.
        const WAITERS = 1 << 12;
        /// In the swap cache: the frame has a slot on the swap device (`PG_swapcache`).
        const SWAP_CACHE = 1 << 13;
        /// One of the 512 frames of a huge page that has not been split.
        const LARGE = 1 << 14;
        /// Written through an external MMU that has not passed its dirty bit on yet.
        const DEVICE_DIRTY = 1 << 15;
    }
}

impl FrameFlags {
    /// A page of secret memory. No other page has this flag without `ANON`.
    pub const SECRET: Self = Self::ANON_EXCLUSIVE;

    /// Returns true for a page of secret memory.
    pub fn is_secret(self) -> bool {
        self & (Self::ANON | Self::ANON_EXCLUSIVE) == Self::SECRET
    }
}
