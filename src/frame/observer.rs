//! The interface of an oracle that watches frames.

use crate::addr::Pfn;
use std::any::Any;

/// Observes the frames of a memory. Called with any locks held: an implementation may take gates,
/// and no other lock that is taken elsewhere.
pub(crate) trait FrameWatch: Any + Send + Sync {
    /// The frame has lost its last reference and is about to become free. `owes_dirty`: it was
    /// written through an MMU that has not passed its dirty bit on.
    fn retiring(&self, pfn: Pfn, owes_dirty: bool);
    /// The frame is taken for clean, but was written through an MMU that has not passed its dirty
    /// bit on.
    fn write_lost(&self, pfn: Pfn);
}
