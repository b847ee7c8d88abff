//! How a virtual machine behaves.

use crate::extmmu::References;

/// What the processor's page-table walk notes in entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessedBits {
    /// Accessed bits.
    #[default]
    Present,
    /// None, as in early EPT: aging takes an entry that exists for a used one and zaps it.
    Absent,
}

/// How a virtual machine behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VmConfig {
    /// References on frames.
    pub references: References,
    /// Accessed bits.
    pub accessed: AccessedBits,
    /// A mistake made on purpose, to see it found.
    pub mistake: Option<KvmMistake>,
}

/// Mistakes that were made in drivers of this kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvmMistake {
    /// TLBs are not flushed when entries are zapped (B23).
    NoFlush,
    /// They are flushed at the end of the window.
    LateFlush,
    /// The last page of a range is not flushed.
    ShortFlush,
    /// What was looked up is used without asking whether it still holds (B11).
    NoRetry,
    /// The dirty bit is not set in the entry (B26).
    LostDirty,
    /// A gfn-to-pfn cache becomes valid outside of its lock (B22).
    EarlyValid,
    /// A gfn-to-pfn cache is not told of windows.
    DeafCache,
    /// The end of a window does not find the slots that its beginning found, and does not count it out (B34).
    LostEnd,
}
