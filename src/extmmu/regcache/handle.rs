//! A handle on a region: the adapter transfers bytes of the region while it lives.

use super::{
    error::RegError,
    region::Region,
    regions::{Table, TableGuard},
};
use crate::{
    addr::{PAGE_SIZE, Vpn, by_page, chunks},
    ctx::CallCx,
    error::ByteRange,
    notifier::Access,
};
use std::sync::Arc;

/// The use of a registered region. The region stays registered while this lives, also if a window
/// takes it out of the cache: then the transfer ends on the pages that it began with, as the pins
/// hold them. Before that it goes by the entries of the adapter.
#[must_use = "the region may be deregistered when this is dropped"]
pub struct RegionHandle<'c> {
    table: &'c Table,
    region: Arc<Region>,
}

impl<'c> RegionHandle<'c> {
    /// Wraps a region that has a user for this handle.
    pub(super) fn new(table: &'c Table, region: Arc<Region>) -> Self {
        Self { table, region }
    }
    /// Returns true if a new request would find the region.
    pub fn is_current(&self) -> bool {
        self.region.is_valid()
    }
    /// Returns true if the region was pinned when it was registered.
    pub fn is_pinned(&self) -> bool {
        self.region.pinned
    }
    /// Returns the bytes of the region.
    pub fn bytes(&self) -> ByteRange {
        let range = self.region.range;
        ByteRange {
            addr: range.start().addr(),
            len: range.pages() * PAGE_SIZE,
        }
    }
    /// Reads `out.len()` bytes from `addr` on.
    ///
    /// # Errors
    ///
    /// [`RegError::Outside`]; [`RegError::Invalidated`] if a window has taken a region without
    /// pins. No byte was read then.
    pub fn read(&self, cx: &mut CallCx<'_>, addr: u64, out: &mut [u8]) -> Result<(), RegError> {
        let offset = self.offset(addr, out.len(), Access::Read)?;
        if let Some(gate) = self.current(cx, addr, out.len()) {
            return by_page(addr, out, |page, offset, part| {
                let view = gate.lookup(&page).expect("it is there");
                view.read(offset, part);
                Ok(())
            });
        }
        let by_pins = self.region.with_pins(|pins| pins.read_at(offset, out));
        by_pins.map(|_| ()).ok_or_else(|| self.gone())
    }
    /// Writes all of `bytes` from `addr` on.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read). No byte was written then.
    pub fn write(&self, cx: &mut CallCx<'_>, addr: u64, bytes: &[u8]) -> Result<(), RegError> {
        let offset = self.offset(addr, bytes.len(), Access::Write)?;
        if let Some(mut gate) = self.current(cx, addr, bytes.len()) {
            return by_page(addr, bytes, |page, offset, part| {
                let mut view = gate.lookup_mut(&page).expect("it allows writing");
                view.write(offset, part);
                Ok(())
            });
        }
        let by_pins = self.region.with_pins(|pins| pins.write_at(offset, bytes));
        by_pins.map(|_| ()).ok_or_else(|| self.gone())
    }
    /// Locks the gate, if the region is current and the adapter has an entry for each page of the
    /// bytes. An adapter that is being unregistered has none.
    fn current<'p>(
        &'p self,
        cx: &'p mut CallCx<'_>,
        addr: u64,
        len: usize,
    ) -> Option<TableGuard<'p>> {
        let gate = self.table.lock(cx);
        let has = |(page, _, _): (Vpn, usize, usize)| gate.lookup(&page).is_some();
        let all = self.region.is_valid() && chunks(addr, len).all(has);
        all.then_some(gate)
    }
    /// The error of a transfer that has neither entries nor pins.
    fn gone(&self) -> RegError {
        let at = self.region.range.start().addr();
        self.region.invalidate();
        if self.region.pinned {
            RegError::Revoked(at)
        } else {
            RegError::Invalidated(at)
        }
    }
    /// Returns the offset of `addr` in the region, if the region allows the access.
    fn offset(&self, addr: u64, len: usize, access: Access) -> Result<usize, RegError> {
        let (own, len) = (self.bytes(), len as u64);
        let end = addr.checked_add(len);
        let inside = own.addr <= addr && end.is_some_and(|end| end <= own.addr + own.len);
        let allowed = self.region.writable || access == Access::Read;
        if !inside || !allowed {
            return Err(RegError::Outside(ByteRange { addr, len }));
        }
        Ok(usize::try_from(addr - own.addr).expect("a region is in memory"))
    }
}

impl std::fmt::Debug for RegionHandle<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("RegionHandle").field(&self.region).finish()
    }
}

impl Drop for RegionHandle<'_> {
    fn drop(&mut self) {
        self.region.remove_user();
    }
}
