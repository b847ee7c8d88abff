//! Seals of shared memory: operations and mappings that the file refuses from then on.

use super::{
    Reference,
    outcome::{Came, DONE, Step, errno, must},
    page::{Object, Page, Pages},
};
use crate::{
    file::Seals,
    mm::{MapFlags, Prot},
    replay::Op,
};

/// The seals that forbid to write.
pub(super) const WRITES: Seals = Seals::WRITE.union(Seals::FUTURE_WRITE);

/// The part of an `mmap` that seals refuse.
pub(super) enum Against {
    Nothing,
    /// The mapping never gets the right to write.
    Writing,
    Mapping,
}

impl Object {
    /// Returns true if the object has one of these seals.
    pub(super) fn has(&self, seals: Seals) -> bool {
        self.seals.is_some_and(|own| own.intersects(seals))
    }
    /// Returns true if a seal forbids the operation.
    pub(super) fn refuses(&self, op: &Op) -> bool {
        match *op {
            Op::Ftruncate { len, .. } => {
                (len < self.size && self.has(Seals::SHRINK))
                    || (len > self.size && self.has(Seals::GROW))
            }
            Op::PunchHole { .. } => self.has(WRITES),
            Op::Pwrite { off, .. } => {
                self.has(WRITES) || (off >= self.size && self.has(Seals::GROW))
            }
            _ => false,
        }
    }
}

impl Reference {
    /// Returns what of an `mmap` the seals of its file refuse.
    pub(super) fn sealed_against(&self, op: &Op) -> Against {
        let Op::Mmap {
            prot,
            flags,
            file: Some(ref name),
            ..
        } = *op
        else {
            return Against::Nothing;
        };
        let sealed = self.objects[self.files[name]].has(WRITES);
        if !sealed || !flags.contains(MapFlags::SHARED) {
            return Against::Nothing;
        }
        match prot.contains(Prot::WRITE) {
            true => Against::Mapping,
            false => Against::Writing,
        }
    }
    /// `fcntl(F_ADD_SEALS)`.
    pub(super) fn add_seals(&mut self, file: &str, seals: u32, came: Came<'_>) -> Step {
        let nth = self.files[file];
        let Some(mut seals) = Seals::from_bits(seals) else {
            return must(&errno("EINVAL"), came);
        };
        let Some(own) = self.objects[nth].seals else {
            return must(&errno("EINVAL"), came);
        };
        if own.contains(Seals::SEAL) {
            return must(&errno("EPERM"), came);
        }
        if seals.contains(Seals::EXEC) {
            // The file may be executed, and stays as it is.
            seals |= WRITES | Seals::SHRINK | Seals::GROW;
        }
        if seals.contains(Seals::WRITE) && !own.contains(Seals::WRITE) {
            let all = || self.processes.values().flat_map(Pages::values);
            let of_file = |page: &&Page| page.object.is_some_and(|(o, _)| o == nth);
            if all().filter(of_file).any(|p| p.shared && !p.read_only) {
                return must(&errno("EBUSY"), came);
            }
            // A device may hold a page that is mapped, and so may the kernel's I/O.
            let held = all().any(|page| of_file(&page)) || !self.holds.are_none();
            if held && *came == errno("EBUSY") {
                return Ok(());
            }
        }
        must(&DONE, came)?;
        self.objects[nth].seals = Some(own | seals);
        Ok(())
    }
}
