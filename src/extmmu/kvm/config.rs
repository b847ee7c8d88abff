//! The configuration of a virtual machine, and the mistakes that tests make on purpose.

use crate::extmmu::References;

/// The bits that the processor's page-table walk sets in entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum AccessedBits {
    /// The walk sets accessed bits.
    #[default]
    Present,
    /// The walk sets none, as in early EPT: aging counts an entry that exists as used, and zaps it.
    Absent,
}

/// The configuration of a virtual machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct VmConfig {
    /// The policy for references on frames.
    pub references: References,
    /// The presence of accessed bits.
    pub accessed: AccessedBits,
    /// A mistake made on purpose, for a test that must find it.
    pub mistake: Option<KvmMistake>,
}

mistakes! {
    /// Mistakes that drivers of this kind have made, for tests that must find them.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
    pub enum KvmMistake {
        /// TLBs are not flushed when entries are zapped (B23).
        NoFlush,
        /// TLBs are flushed at the end of the window.
        LateFlush,
        /// The last page of a range is not flushed.
        ShortFlush,
        /// The result of a look-up is used without validation (B11).
        NoRetry,
        /// The dirty bit is not set in the entry (B26).
        LostDirty,
        /// A gfn-to-pfn cache becomes valid outside of its lock (B22).
        EarlyValid,
        /// Windows do not invalidate gfn-to-pfn caches.
        DeafCache,
        /// The end of a window does not find the slots that its beginning found, and does not count
        /// it out (B34).
        LostEnd,
    }
}
