//! Where an oracle looks on.

use super::{board::Board, cached::Translation, seat::Seat};
use crate::addr::VpnRange;
use std::sync::Arc;

/// Told of what happens in one address space. Called with any locks held: it may take gates, nothing else.
pub(crate) trait WindowWatch: Send + Sync {
    /// A window is open: everybody has acknowledged.
    fn opened(&self, range: VpnRange);
    /// A window is about to end.
    fn closing(&self, range: VpnRange);
    /// A driver gets to know this translation: whatever it has in tables and TLBs from here on comes of one of these.
    fn handed_out(&self, translation: &Translation);
    /// A driver, its gate held, enters this translation in its store.
    fn established(&self, translation: &Translation);
}

impl Board {
    /// Has `watch` look on from now on; the first one stays.
    pub(super) fn set_watch(&self, watch: Arc<dyn WindowWatch>) {
        let _first = self.watch.get_or_init(|| watch);
    }
    pub(super) fn watched(&self, f: impl FnOnce(&dyn WindowWatch)) {
        if let Some(watch) = self.watch.get() {
            f(&**watch);
        }
    }
}

impl Seat {
    pub(super) fn handed_out(&self, translation: &Translation) {
        self.board.watched(|w| w.handed_out(translation));
    }
    pub(super) fn established(&self, translation: &Translation) {
        self.board.watched(|w| w.established(translation));
    }
}
