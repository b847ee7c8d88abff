//! Where an oracle looks on.

use super::{board::Board, cached::Translation, entry::RegId, seat::Seat, store::ShadowEntry};
use crate::{
    addr::{Vpn, VpnRange},
    sync::IdSource,
};
use std::sync::Arc;

/// Told of what happens in one address space. Called with any locks held: it may take gates, nothing else.
pub(crate) trait WindowWatch: Send + Sync {
    /// A driver is about to be asked to acknowledge a window.
    fn asking(&self, window: u64, range: VpnRange, mmu: &'static str);
    /// A window is open: everybody has acknowledged.
    fn opened(&self, window: u64, range: VpnRange);
    /// A window that was open is about to end.
    fn closing(&self, range: VpnRange);
    /// A window has ended, or was refused; everybody who acknowledged it has been told.
    fn closed(&self, window: u64);
    /// A driver looks at what it found for a page.
    fn tried(&self, reg: RegId, mmu: &'static str, at: Vpn);
    /// It may keep that.
    fn got(&self, reg: RegId, at: Vpn);
    /// A driver's references on what these entries led to are about to be given up, its gate not held.
    fn unpinning(&self, reg: RegId, entries: &[ShadowEntry]);
    /// What was handed out so far, and entered, counted.
    fn handed(&self) -> u64;
    /// A driver gave these translations up of its own accord, its gate no longer held; its references on what they led to are
    /// about to go, and no entry has another. `handed` was [counted](Self::handed) when the gate was let go.
    fn given_up(&self, reg: RegId, gone: &[Translation], handed: u64);
    /// Every driver has been released; the pages of the address space are about to go.
    fn released(&self);
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
    /// A number for the next window, if anybody looks on.
    pub(super) fn next_watched(&self) -> u64 {
        static NEXT: IdSource = IdSource::starting_at(0);
        self.watch.get().map_or(0, |_| NEXT.next())
    }
    pub(super) fn watched(&self, f: impl FnOnce(&dyn WindowWatch)) {
        if let Some(watch) = self.watch.get() {
            f(&**watch);
        }
    }
}

impl Seat {
    pub(super) fn tried(&self, at: Vpn) {
        let mmu = || self.standing.name();
        self.board.watched(|w| w.tried(self.reg, mmu(), at));
    }
    pub(super) fn got(&self, at: Vpn) {
        self.board.watched(|w| w.got(self.reg, at));
    }
    pub(super) fn handed_out(&self, translation: &Translation) {
        self.board.watched(|w| w.handed_out(translation));
    }
    pub(super) fn established(&self, translation: &Translation) {
        self.board.watched(|w| w.established(translation));
    }
}
