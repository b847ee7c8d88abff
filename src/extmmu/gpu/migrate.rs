//! Pages go to the memory of the GPU, and come home.

use super::{error::GpuError, fault::pages_of, gpu::Gpu};
use crate::{
    addr::{Vpn, VpnRange},
    ctx::CallCx,
    error::MigrateError,
    mm::{MigrateArgs, MigrateSelect, MigrateTo, Migrated, Mm, Stays},
};

impl Gpu {
    /// Has the pages of the bytes `[addr, addr + len)`, of one mapping, migrate to the memory of
    /// the GPU. Returns the number of pages that moved. The oldest pages there go home to make
    /// room.
    ///
    /// # Errors
    ///
    /// [`GpuError::NoMemory`], [`GpuError::Range`], [`GpuError::Migrate`], [`GpuError::Gone`].
    pub fn to_device(&self, cx: &mut CallCx<'_>, addr: u64, len: u64) -> Result<u64, GpuError> {
        let mm = self.mm.upgrade().ok_or(GpuError::Gone)?;
        let range = pages_of(addr, len)?;
        let done = self.go(cx, &mm, range)?;
        let stayed = done.pages.iter().filter_map(|(_, came)| came.err());
        let lack = stayed.filter(|why| *why == Stays::NoFrame).count() as u64;
        let mut moved = done.moved() as u64;
        if lack > 0 && self.make_room(cx, &mm, lack, range) {
            moved += self.go(cx, &mm, range)?.moved() as u64;
        }
        Ok(moved)
    }
    /// Has the pages of the bytes `[addr, addr + len)`, of one mapping, come home. Returns the
    /// number of pages that moved.
    ///
    /// # Errors
    ///
    /// As [`to_device`](Self::to_device).
    pub fn to_system(&self, cx: &mut CallCx<'_>, addr: u64, len: u64) -> Result<u64, GpuError> {
        let mm = self.mm.upgrade().ok_or(GpuError::Gone)?;
        self.come_home(cx, &mm, pages_of(addr, len)?)
    }
    /// Has every page in the memory of the GPU come home, of whichever process. Returns the number
    /// of pages that are left: those that others use at this moment.
    ///
    /// # Errors
    ///
    /// [`GpuError::NoMemory`], [`GpuError::Gone`].
    pub fn evict(&self, cx: &mut CallCx<'_>) -> Result<u32, GpuError> {
        let mm = self.mm.upgrade().ok_or(GpuError::Gone)?;
        let board = self.board.as_ref().ok_or(GpuError::NoMemory)?;
        let before = board.memory.in_use();
        let left = mm.machine().evict_device(cx, &board.memory);
        self.meter.migrated(u64::from(before.saturating_sub(left)));
        self.resident.lock().clear();
        Ok(left)
    }
    /// Counts a fault of a page, and has the page migrate when it has had enough of them.
    pub(super) fn move_if_hot(&self, cx: &mut CallCx<'_>, mm: &Mm, at: Vpn) {
        let Some(after) = self.config.migrate_after else {
            return;
        };
        let mut gate = self.gate.lock(cx);
        let faults = gate.state().faults.entry(at).or_default();
        *faults += 1;
        let is_hot = *faults >= after;
        if is_hot {
            gate.state().faults.remove(&at);
        }
        drop(gate);
        if is_hot {
            // A page that stays is used where it is.
            let _moved = self.go(cx, mm, at.into());
        }
    }
    fn go(&self, cx: &mut CallCx<'_>, mm: &Mm, range: VpnRange) -> Result<Migrated, GpuError> {
        let done = self.migrate(cx, mm, (range, MigrateSelect::SYSTEM), MigrateTo::Device)?;
        let moved = done.pages.iter().filter(|(_, came)| came.is_ok());
        self.resident.lock().extend(moved.map(|(at, _)| *at));
        Ok(done)
    }
    fn come_home(&self, cx: &mut CallCx<'_>, mm: &Mm, range: VpnRange) -> Result<u64, GpuError> {
        let select = MigrateSelect::DEVICE_PRIVATE | MigrateSelect::DEVICE_COHERENT;
        let done = self.migrate(cx, mm, (range, select), MigrateTo::System)?;
        Ok(done.moved() as u64)
    }
    fn migrate(
        &self,
        cx: &mut CallCx<'_>,
        mm: &Mm,
        (range, select): (VpnRange, MigrateSelect),
        to: MigrateTo,
    ) -> Result<Migrated, GpuError> {
        let board = self.board.as_ref().ok_or(GpuError::NoMemory)?;
        let args = MigrateArgs {
            memory: &board.memory,
            range,
            select,
        };
        let done = mm.migrate_vma(cx, &args, |_| to)?;
        self.meter.migrated(done.moved() as u64);
        Ok(done)
    }
    /// Has the oldest pages of this GPU come home until `lack` frames are free. Pages of `spared`
    /// stay. Returns true if a frame is free.
    fn make_room(&self, cx: &mut CallCx<'_>, mm: &Mm, lack: u64, spared: VpnRange) -> bool {
        let mut stay = Vec::new();
        let mut free = 0;
        while free < lack {
            let Some(at) = self.resident.lock().pop_front() else {
                break;
            };
            if spared.contains(at) {
                stay.push(at);
                continue;
            }
            match self.come_home(cx, mm, at.into()) {
                Ok(moved) => free += moved,
                // Its mapping has gone, and the page with it.
                Err(GpuError::Migrate(MigrateError::Range(_))) => {}
                Err(_) => break,
            }
        }
        self.resident.lock().extend(stay);
        free > 0
    }
}
