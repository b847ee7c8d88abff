//! The configuration of an owner, and the mistakes that tests make on purpose.

use crate::extmmu::References;
use std::time::Duration;

mistakes! {
    /// Mistakes made on purpose, for tests that must find them.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
    pub enum XpmemMistake {
        /// Windows recall nothing.
        NoRecall,
        /// The recall leaves out the last page.
        ShortRecall,
        /// Recalls come at the end of the window.
        LateRecall,
        /// The window does not wait for the answers.
        NoWait,
        /// References are given up before the answers.
        EarlyUnpin,
        /// The result of a look-up is exported without validation (B11).
        NoRetry,
        /// The frame is not marked dirty by stores of importers (B26).
        LostDirty,
    }
}

/// The configuration of an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct OwnerConfig {
    /// The time that a partition has for its answer.
    pub deadline: Duration,
    /// The policy for references on exported frames.
    pub references: References,
    /// A mistake made on purpose.
    pub mistake: Option<XpmemMistake>,
}

impl Default for OwnerConfig {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(5),
            references: References::Held,
            mistake: None,
        }
    }
}
