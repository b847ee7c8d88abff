//! The fault of a processor on a page that lies on a device: the page comes home (`do_swap_page`).

use super::{
    Selection,
    migration::{Migration, frame_at_home},
};
use crate::mm::{entry::pte::RawPte, fault::scope::FaultScope, vma::Vma};
use crate::{addr::Vpn, ctx::rank, error::FaultError};

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
    fn bring_home(
        &mut self,
        vma: &Vma,
        at: Vpn,
        seen: RawPte,
    ) -> Result<(), FaultError> {
        let mm = self.lease.mm;
        let machine = mm.machine();
        let mem = machine.mem();
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
        let device = machine.devices.find(owner).expect("it has a page there");
        let select = Selection {
            owner,
            system: false,
            device: true,
        };
        let new = frame_at_home(mem)?;
        let mut migration = Migration::new(mm, self.lease.cx.descend::<rank::Folio, _>());
        let _one_page = migration.collect(vma, at.into(), &select, Some(locked));
        migration.unmap();
        let Some(moving) = migration.pages.first_mut() else {
            return Ok(()); // Changed, or referenced for a moment.
        };
        moving.go_to(mem, new);
        let mut answer = Ok(());
        migration.hand_over(|page| {
            answer = device.migrate_to_ram(page);
            answer.is_ok()
        });
        drop(migration);
        answer.map_err(|_lost| FaultError::DeviceLost(at.addr()))
    }
}
