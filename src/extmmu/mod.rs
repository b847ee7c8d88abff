//! External MMUs to use, to read, and to copy from.

mod bill;
pub mod gru;
pub mod kvm;
mod recorder;
mod tlb;
#[allow(
    clippy::disallowed_methods,
    reason = "partitions have threads of their own"
)]
pub mod xpmem;

pub use bill::{Bill, Meter, Span};
pub use recorder::{Recorder, Told};
pub use tlb::{PageSize, Tlb};

/// Whether a driver's entries hold references on their frames. A frame with a reference more than it has mappings is
/// copied at the next write after a fork, where it would have been reused, and is not swapped out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum References {
    /// None: the notifier alone keeps them true (KVM since 2.6.27).
    #[default]
    Unpinned,
    /// One each, given up when the entry goes, after everybody has flushed or answered (KVM in early 2008, XPmem).
    Pinned,
}
