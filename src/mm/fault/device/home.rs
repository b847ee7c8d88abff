//! The fault of a processor on a page that lies on a device: the page comes home (`do_swap_page`).

use super::{
    Selection,
    migration::{Migration, Moving},
};
use crate::mm::{entry::pte::RawPte, fault::scope::FaultScope, vma::Vma};
use crate::{
    addr::Vpn,
    ctx::rank,
    error::{FaultError, NoMemory},
    frame::{DeviceId, Frame},
    sync::thread,
};

impl FaultScope<'_> {
    /// Brings the page of a private entry home, or takes that of an exclusive entry back; does
    /// nothing for other entries.
    pub(in crate::mm) fn fault_on_device(
        &mut self,
        vma: &Vma,
        at: Vpn,
        seen: RawPte,
    ) -> Result<(), FaultError> {
        match (seen.device_private(), seen.device_exclusive()) {
            (Some(_), _) => self.bring_home(vma, at, seen),
            (None, Some(_)) => {
                self.take_back(vma, at, seen);
                Ok(())
            }
            (None, None) => Ok(()),
        }
    }
    /// Brings the page of the private entry `seen` home. Returns without it if another thread has
    /// it locked, after that thread is done: the access faults again.
    fn bring_home(&mut self, vma: &Vma, at: Vpn, seen: RawPte) -> Result<(), FaultError> {
        let mm = self.lease.mm;
        let mem = mm.machine().mem();
        let Some(pfn) = seen.device_private() else {
            return Ok(());
        };
        let locked = self.with_leaf(at, |leaf| {
            (leaf.get(at) == seen).then(|| mem.try_lock(mem.get(pfn)).map_err(drop))
        })?;
        let locked = match locked {
            Some(Ok(locked)) => locked,
            // No reference is kept: it would keep the page from moving.
            Some(Err(())) => {
                mem.wait_unlocked(&mut self.lease.cx, pfn);
                return Ok(());
            }
            None => return Ok(()),
        };
        let owner = mem.device_of(pfn).expect("its memory has a frame in use");
        let select = Selection {
            owner,
            system: false,
            private: true,
            coherent: false,
        };
        let new = mem.alloc().map_err(|_| NoMemory::Frame)?;
        let mut migration = Migration::new(mm, self.lease.cx.descend::<rank::Folio, _>());
        let _one_page = migration.collect(vma, at.into(), &select, Some(locked));
        migration.unmap();
        if !send_home(migration, (at, owner), new)? {
            // It has changed, or another thread is about to drop its reference.
            thread::yield_now();
        }
        Ok(())
    }
    /// Brings the page of the present entry `seen` home from a device that processors reach, for a
    /// holder that keeps it (`migrate_device_coherent_folio`).
    pub(in crate::mm) fn bring_coherent_home(
        &mut self,
        at: Vpn,
        seen: RawPte,
    ) -> Result<(), FaultError> {
        let mm = self.lease.mm;
        let mem = mm.machine().mem();
        let frame = mm.with_leaf_of(&mut self.lease.cx, at, |leaf| {
            let pfn = seen.counted().filter(|_| leaf.get(at) == seen);
            pfn.map(|pfn| mem.get(pfn))
        });
        let Some(frame) = frame.flatten() else {
            return Ok(()); // Changed: the caller looks anew.
        };
        let Some(owner) = mem.device_of(frame.pfn()) else {
            return Ok(());
        };
        let new = mem.alloc().map_err(|_| NoMemory::Frame)?;
        let locked = mem.lock(&mut self.lease.cx, frame);
        let mut migration = Migration::new(mm, self.lease.cx.descend::<rank::Folio, _>());
        migration.pages.push(Moving::new(mem, at, locked));
        migration.unmap();
        match send_home(migration, (at, owner), new)? {
            true => Ok(()),
            false => Err(FaultError::Busy(at.addr())),
        }
    }
}

/// Sends the one page of a migration home to the frame `new`, if it can go. Returns true if it
/// did.
fn send_home<'a>(
    mut migration: Migration<'a>,
    (at, owner): (Vpn, DeviceId),
    new: Frame<'a>,
) -> Result<bool, FaultError> {
    let machine = migration.mm.machine();
    // Without the page, the device may be gone by now.
    let Some(moving) = migration.pages.first_mut() else {
        return Ok(false);
    };
    let device = machine.devices.find(owner).expect("it has a page there");
    moving.go_to(machine.mem(), new);
    let mut answer = Ok(());
    migration.hand_over(|page| {
        answer = device.migrate_to_ram(page);
        answer.is_ok()
    });
    let moved = migration.pages.first().is_some_and(|moving| moving.moved);
    drop(migration);
    answer.map_err(|_lost| FaultError::DeviceLost(at.addr()))?;
    Ok(moved)
}
