//! The device of a script that has memory of its own: pages go there and come home.

use super::{
    came::{done, failed, returned},
    op::Op,
    script::Outcome,
    special_op::{Bytes, NewDevice},
};
use crate::{
    addr::{Vpn, VpnRange},
    ctx::CallCx,
    error::{ByteRange, Errno, MigrateError},
    frame::{DeviceKind, DeviceMemory},
    mm::{DevicePages, DeviceRegistration, Machine, MigrateArgs, MigrateSelect, MigrateTo, Mm},
};
use std::sync::Arc;

/// The driver. It copies pages as they are.
#[derive(Debug)]
struct Driver(DeviceMemory);

impl DevicePages for Driver {}

/// The device, from the operation that adds it to the one that removes it.
#[derive(Debug, Default)]
pub(super) struct OwnMemory(Option<(Arc<Driver>, DeviceRegistration)>);

impl Op {
    /// Returns true for the operations of a device with memory of its own.
    pub(crate) fn is_of_device(&self) -> bool {
        matches!(
            self,
            Self::Device(_)
                | Self::RemoveDevice {}
                | Self::EvictDevice {}
                | Self::ToDevice(_)
                | Self::FromDevice(_)
                | Self::Exclusive { .. }
        )
    }
}

impl OwnMemory {
    /// Executes an operation [of a device](Op::is_of_device).
    pub(super) fn execute(&mut self, cx: &mut CallCx<'_>, mm: &Mm, op: &Op) -> Outcome {
        let machine = mm.machine();
        if let Op::Device(new) = op {
            return self.add(machine, new);
        }
        let Some((driver, _)) = &self.0 else {
            return failed(Errno::ENODEV);
        };
        let memory = &driver.0;
        match op {
            Op::RemoveDevice {} => self.remove(cx, machine),
            Op::EvictDevice {} => Outcome::Ret(machine.evict_device(cx, memory).into()),
            Op::ToDevice(range) => {
                let select = MigrateSelect::SYSTEM;
                migrate(cx, mm, memory, range, (select, MigrateTo::Device))
            }
            Op::FromDevice(range) => {
                let select = MigrateSelect::DEVICE_PRIVATE | MigrateSelect::DEVICE_COHERENT;
                migrate(cx, mm, memory, range, (select, MigrateTo::System))
            }
            Op::Exclusive { addr } => {
                done(mm.make_device_exclusive(cx, *addr, Some(memory), |_, _| ()))
            }
            other => unreachable!("{other:?} is not of a device"),
        }
    }
    fn add(&mut self, machine: &Machine, new: &NewDevice) -> Outcome {
        if self.0.is_some() {
            return failed(Errno::EEXIST);
        }
        let kind = match new.coherent {
            true => DeviceKind::Coherent,
            false => DeviceKind::Private,
        };
        let added = machine.add_device(kind, new.frames, |memory| Arc::new(Driver(memory)));
        done(added.map(|device| self.0 = Some(device)))
    }
    /// Removes the device, which has no page when all processes have ended.
    ///
    /// # Panics
    ///
    /// If it has one.
    pub(super) fn end(&mut self, cx: &mut CallCx<'_>, machine: &Machine) {
        let gone = self.remove(cx, machine);
        assert_ne!(gone, failed(Errno::EBUSY), "a frame is left on the device");
    }
    /// Removes the device, unless pages are left there.
    fn remove(&mut self, cx: &mut CallCx<'_>, machine: &Machine) -> Outcome {
        let Some((driver, registration)) = self.0.take() else {
            return failed(Errno::ENODEV);
        };
        match machine.remove_device(cx, registration) {
            Ok(()) => Outcome::Ret(0),
            Err(registration) => {
                self.0 = Some((driver, registration));
                failed(Errno::EBUSY)
            }
        }
    }
}

/// Has the pages of these bytes migrate, and returns the number of those that did.
fn migrate(
    cx: &mut CallCx<'_>,
    mm: &Mm,
    memory: &DeviceMemory,
    &Bytes { addr, len }: &Bytes,
    (select, to): (MigrateSelect, MigrateTo),
) -> Outcome {
    let end = addr.checked_add(len).map(Vpn::containing);
    let range = end.and_then(|end| VpnRange::new(Vpn::containing(addr), end));
    let moved = match range {
        None => Err(MigrateError::Range(ByteRange { addr, len })),
        Some(range) => {
            let args = MigrateArgs {
                memory,
                range,
                select,
            };
            mm.migrate_vma(cx, &args, |_| to)
        }
    };
    returned(moved.map(|moved| moved.moved() as u64))
}

/// Returns an operation of each kind, by number, with any arguments.
#[cfg(test)]
pub(super) fn draw(kind: u64, (addr, len): (u64, u64)) -> Op {
    match kind {
        0 => Op::Device(NewDevice {
            frames: len.to_le_bytes()[0].into(),
            coherent: addr.is_multiple_of(2),
        }),
        1 => Op::RemoveDevice {},
        2 => Op::EvictDevice {},
        3 => Op::ToDevice(Bytes { addr, len }),
        4 => Op::FromDevice(Bytes { addr, len }),
        _ => Op::Exclusive { addr },
    }
}
