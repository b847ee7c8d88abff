//! The rights that a VMA gives to an entry.
//!
//! An entry may have fewer rights than its VMA, never more: a write that the VMA allows and the
//! entry does not is a fault, where copy-on-write is decided ([`cow`](super::cow)) and an object
//! learns of the write.

use crate::mm::{
    entry::{flags::VmFlags, pte::Rights},
    vma::Vma,
};
use crate::notifier::Access;

impl Vma {
    /// Returns true if the VMA allows the access at all (`access_error`).
    pub(in crate::mm) fn allows(&self, access: Access) -> bool {
        match access {
            Access::Read => self.flags.accessible(),
            Access::Write => self.flags.contains(VmFlags::WRITE),
        }
    }
    /// Returns the rights of an entry about which only this VMA decides.
    pub(in crate::mm) fn rights(&self) -> Rights {
        Rights {
            // x86 has no write-only and no execute-only page.
            read: self.flags.accessible(),
            write: self.flags.contains(VmFlags::WRITE),
        }
    }
    /// Returns the VMA's rights without the right to write.
    pub(in crate::mm) fn read_only(&self) -> Rights {
        Rights {
            write: false,
            ..self.rights()
        }
    }
    /// Returns true for a shared mapping whose object must learn of the first write to a clean
    /// page (`vma_wants_writenotify`).
    pub(in crate::mm) fn notes_writes(&self) -> bool {
        self.flags.contains(VmFlags::SHARED) && self.object().is_some_and(|o| o.notes_writes())
    }
    /// Returns the rights of an entry that maps the object's own page before the first write to
    /// it: without the right to write where a private mapping must copy, or the object must learn
    /// of the write.
    pub(in crate::mm) fn mapped_rights(&self) -> Rights {
        let caught = self.notes_writes() || self.is_uffd_wp();
        if self.flags.contains(VmFlags::SHARED) && !caught {
            self.rights()
        } else {
            self.read_only()
        }
    }
}
