//! Outcomes of a driver's attempt to translate a page.

/// Kind of access wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "remote", derive(serde::Serialize, serde::Deserialize))]
pub enum Access {
    /// Read only.
    Read,
    /// Read and write.
    Write,
}

/// Why a pending reference was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Retry {
    /// An overlapping window is open now.
    #[error("an invalidation window over the page is open")]
    Busy,
    /// An overlapping window closed since the ticket was drawn.
    #[error("the page was invalidated since the ticket was drawn")]
    Stale,
    /// The driver was unregistered; retrying is pointless.
    #[error("the driver is no longer registered")]
    Detached,
}

/// Outcome of settling a ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing happened to the pages.
    Current,
    /// A window over them is open.
    Busy,
    /// One has closed since.
    Stale,
}
