//! Outcomes of a driver's attempt to translate a page.

/// The kind of access that a driver wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Access {
    /// Read only.
    Read,
    /// Read and write.
    Write,
}

/// The reason why a translation that was looked up may not be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Retry {
    /// An overlapping window is open now.
    #[error("an invalidation window over the page is open")]
    Busy,
    /// An overlapping window has closed since the ticket was drawn.
    #[error("the page was invalidated since the ticket was drawn")]
    Stale,
    /// The driver is unregistered; a new ticket would be refused too.
    #[error("the driver is no longer registered")]
    Detached,
}

/// The outcome of the check of a ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TicketVerdict {
    /// No window has concerned the pages since the ticket was drawn.
    Current,
    /// A window over the pages is open.
    Busy,
    /// A window over the pages has closed since.
    Stale,
}

impl TicketVerdict {
    /// Returns the reason to retry, unless the look-up still holds.
    pub(super) fn check(self) -> Result<(), Retry> {
        match self {
            Self::Busy => Err(Retry::Busy),
            Self::Stale => Err(Retry::Stale),
            Self::Current => Ok(()),
        }
    }
}
