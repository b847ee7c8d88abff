//! The trait of an external MMU that follows a process.

use crate::{ctx::CallCx, extmmu::Meter, mm::Mm, oracle::Oracle};
use std::sync::Arc;

/// The part of a replay that is compared with Linux, which has no such device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::replay) enum Compared {
    /// Page tables, copies, reclaim: a device must neither hold pages nor move them.
    Pages,
    /// The layout of processes: a device may do what it likes with pages.
    Layout,
}

/// A device and its driver.
pub(in crate::replay) trait Follower: Send + Sync {
    /// Has an oracle watch the device.
    fn show_to(&self, oracle: &Arc<Oracle>, mm: &Arc<Mm>);
    fn meter(&self) -> &Meter;
    /// Returns the number of its entries.
    fn held(&self, cx: &mut CallCx<'_>) -> usize;
    /// Reads bytes, and returns true if the process may.
    fn read(&self, cx: &mut CallCx<'_>, addr: u64, out: &mut [u8]) -> bool;
    /// Writes bytes, if the process may. A refused access changes nothing.
    fn write(&self, cx: &mut CallCx<'_>, addr: u64, bytes: &[u8]);
}
