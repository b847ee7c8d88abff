//! The interface through which an oracle observes the protocol.

use super::{
    outcome::Access,
    translation::{RegId, Translation},
};
use crate::{
    addr::{Vpn, VpnRange},
    frame::DeviceId,
};
use std::time::Duration;

/// The time after which an audit gives up a gate. A holder unlocks its gate soon, however busy the
/// machine is; a gate that stays locked longer has a holder that waits for the auditor.
pub(super) const AUDIT_TIMEOUT: Duration = Duration::from_secs(10);

/// Returns the name of a type, without its path and its parameters.
pub(crate) fn name_of_type<T: ?Sized>() -> &'static str {
    let whole = std::any::type_name::<T>();
    // By bytes: a search for a pattern takes longer than all else of a registration.
    let bytes = whole.as_bytes();
    let end = bytes.iter().position(|b| *b == b'<');
    let plain = &whole[..end.unwrap_or(whole.len())];
    let colon = plain.as_bytes().iter().rposition(|b| *b == b':');
    &plain[colon.map_or(0, |colon| colon + 1)..]
}

/// An observer of one address space. Its methods are called with any locks held, so they may lock
/// gates and nothing else.
pub(crate) trait WindowObserver: Send + Sync {
    /// A window is about to ask a driver to acknowledge.
    fn calling(&self, window: u64, range: VpnRange, mmu: &'static str);
    /// A window is open: every driver has acknowledged. Its opener leaves the entries of frames of
    /// the device memory `spared` alone.
    fn opened(&self, window: u64, range: VpnRange, spared: Option<DeviceId>);
    /// An open window is about to end.
    fn closing(&self, range: VpnRange);
    /// A window has ended, or was refused; every driver that acknowledged it has been notified.
    fn closed(&self, window: u64);
    /// A driver is about to have its ticket for a page checked.
    fn tried(&self, reg: RegId, mmu: &'static str, at: Vpn);
    /// The check has succeeded: the driver may keep the translation.
    fn got(&self, reg: RegId, at: Vpn);
    /// The driver's references on the frames of these parts of removed entries are about to be
    /// given up, its gate unlocked, and no other entry leads to these frames.
    fn giving_up(&self, reg: RegId, gone: &[Translation]);
    /// Returns the number of translations that were handed out and established so far.
    fn handed(&self) -> u64;
    /// A driver gave these translations up by itself, and has unlocked its gate. Its references on
    /// their frames are about to be given up, and no other entry leads to these. `handed` is the
    /// [count](Self::handed) just before the gate was unlocked.
    fn given_up(&self, reg: RegId, gone: &[Translation], handed: u64);
    /// Every driver has been released; the pages of the address space are about to go.
    fn released(&self);
    /// A driver gets this translation: every translation in its tables and TLBs comes from such a
    /// one.
    fn handed_out(&self, translation: &Translation);
    /// Returns the number of windows that have opened so far. A copy of a translation keeps it.
    fn windows_opened(&self) -> u64;
    /// A driver follows a copy of a translation, made when `since` windows had opened, for an
    /// access to a page.
    fn follows(&self, mmu: &'static str, to: (Vpn, Access), since: u64, copy: &Translation);
    /// A driver, its gate locked, puts this translation into its store.
    fn established(&self, translation: &Translation);
}
