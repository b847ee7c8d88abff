//! How an owner behaves.

use crate::extmmu::References;
use std::time::Duration;

/// Mistakes made on purpose, to see them found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XpmemMistake {
    /// Windows recall nothing.
    NoRecall,
    /// The recall leaves out the last page.
    ShortRecall,
    /// Recalls come at the end of the window.
    LateRecall,
    /// Answers are not waited for.
    NoWait,
    /// References are given up before the answers.
    EarlyUnpin,
    /// What was looked up is exported without asking whether it still holds (B11).
    NoRetry,
    /// What importers store is not told to the frame (B26).
    LostDirty,
}

/// How an owner behaves.
#[derive(Clone, Copy, Debug)]
pub struct OwnerConfig {
    /// How long a partition has for its answer.
    pub deadline: Duration,
    /// Whether exported frames are held.
    pub references: References,
    /// A mistake made on purpose.
    pub mistake: Option<XpmemMistake>,
}

impl Default for OwnerConfig {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(5),
            references: References::Pinned,
            mistake: None,
        }
    }
}
