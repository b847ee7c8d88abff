//! Where an oracle looks on when frames go.

use crate::addr::Pfn;

/// Told of what happens to frames. Called with any locks held: it may take gates, nothing else.
pub(crate) trait FrameWatch: Send + Sync {
    /// The last reference is gone; the frame is about to be given to others.
    fn retiring(&self, pfn: Pfn);
    /// The frame is taken for clean, or goes, but was written through an MMU that never said so.
    fn write_lost(&self, pfn: Pfn);
}
