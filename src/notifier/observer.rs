//! Where an oracle looks on.

use super::{
    shadow_entry::ShadowEntry,
    translation::{RegId, Translation},
};
use crate::addr::{Vpn, VpnRange};

/// Told of what happens in one address space. Called with any locks held: it may take gates, nothing else.
pub(crate) trait WindowObserver: Send + Sync {
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
