//! What is known of a frame beside its counts.

use bitflags::bitflags;

bitflags! {
    /// Page flags, with Linux's names.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct FrameFlags: u16 {
        /// Written since it was last clean.
        const DIRTY = 1;
        /// Used through an external MMU since last looked.
        const ACCESSED = 1 << 1;
        /// Mapped by an external MMU that keeps its own reverse map.
        const EXPORTED = 1 << 2;
        /// Private anonymous memory.
        const ANON = 1 << 3;
        /// Private anonymous memory that a single entry maps: written in place.
        const ANON_EXCLUSIVE = 1 << 4;
        /// Goes to swap, not to a file.
        const SWAP_BACKED = 1 << 5;
        /// On a reclaim list.
        const LRU = 1 << 6;
        /// On the active one.
        const ACTIVE = 1 << 7;
        /// Somebody is at work on it.
        const LOCKED = 1 << 8;
        /// Memory was looked for: it is to be given up once its store has it. It is not mapped along with others.
        const RECLAIM = 1 << 9;
        /// Seen in use once.
        const REFERENCED = 1 << 10;
        /// Locked in memory.
        const UNEVICTABLE = 1 << 11;
        /// Somebody waits for the lock.
        const WAITERS = 1 << 12;
        /// A copy of it is in swap, or has a slot there: `private` of the swap cache.
        const SWAP_CACHE = 1 << 13;
        /// One of the 512 frames of a huge page that has not been split.
        const LARGE = 1 << 14;
        /// Written through an external MMU that has not passed its dirty bit on yet.
        const DEVICE_DIRTY = 1 << 15;
    }
}
