//! The policy for references of a driver's entries.

/// The policy for references on the frames that a driver's entries lead to.
///
/// A frame with more references than mappings is copied at the next write after a fork, where it
/// would have been reused otherwise, and is not swapped out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum References {
    /// No references: the notifier alone keeps the entries true (KVM since 2.6.27). Made with
    /// [`Permit::establish`](crate::notifier::Permit::establish).
    #[default]
    None,
    /// One reference for each entry, given up when the entry goes, after all processors have
    /// flushed or all partitions have answered (KVM in early 2008, XPmem). Made with
    /// [`Permit::establish_held`](crate::notifier::Permit::establish_held).
    Held,
}
