//! [`Profile`]: the kinds of random scripts.

/// The set of operations of a random script.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// Operations of every kind that one address space has; the profile for trials of devices.
    #[default]
    Mixed,
    /// Private and shared anonymous memory of up to 6 processes: mappings that split, merge, move
    /// and grow.
    Pages,
    /// One file (in memory, on disk, or executed in place) with two shared mappings and one
    /// private: written, truncated, punched, synced, paged out, moved.
    Files,
    /// A few private pages of up to 6 processes: paged out, freed lazily, reclaimed, migrated and
    /// merged.
    Swap,
    /// Huge pages: split by operations on their parts, moved, paged out and collapsed.
    Huge,
    /// Huge pages of a pool: private, shared and of a file, forked, moved, protected and given back
    /// as whole pages, and calls on their parts.
    Pool,
    /// [`Pages`](Self::Pages) whose writes are tracked by userfaultfd and scans.
    Tracked,
    /// A few pages of up to 6 processes that the kernel's I/O pins or references, and that other
    /// processes read and write by force: forked, protected, moved, reclaimed, migrated.
    Holds,
    /// A few pages of up to 6 processes that go to the memory of a device and come home, or that
    /// the device has alone: forked, protected, moved, reclaimed, migrated, merged, pinned.
    Device,
    /// A segment of System V and a file that is sealed step by step, of up to 6 processes:
    /// attached, detached, removed, mapped, protected, written, truncated, punched.
    Shared,
}
