//! Page faults: from a page that does not allow an access to one that does (`handle_mm_fault`).
//!
//! Every fault goes through this file: of a processor ([`Mm::fault_in`], from `access`), of a
//! device (`external::resolve`), of `mmap` and `mlock` that fault in ahead (`populate`), and of
//! pages that others than the program get (`follow`). The decision is in two steps:
//!
//! ```text
//! fault_in       the mmap lock, shared, over the page
//!   find the VMA      none: NotMapped; a stack starts above: grow it, the access faults again
//!   check its rights  Denied
//!   FaultScope::fault, by the entry
//!     empty           a huge page, if the VMA asks for those and no table is there
//!                     private anonymous memory: the zero page or a new frame; else the file's page
//!     guard marker    Guarded; a marker of poison: Poisoned
//!     read-only       on a write: copy, or make writable in place
//!     a file's page   a nonlinear mapping: the page that the entry names
//!     in swap         read back through the swap cache
//!     on a device     have it come home, or take it back
//!     on its way      wait until migration has ended
//!   where the VMA is registered with userfaultfd, an absent page and a write to a protected one
//!     become a message: Userfault, and the access faults again after the answer
//! the mmap lock is released; a window that the fault deferred opens now, with its pages claimed
//! ```
//!
//! A fault takes one step and returns: the access tries again, and faults again if it must. So no
//! step has to know whether another thread was first. Memory for tables and frames is taken before
//! a window opens, since nothing may fail in a window.
//!
//! An entry may have fewer rights than its VMA, never more: a write that the VMA allows and the
//! entry does not is a fault, where copy-on-write is decided and an object learns of the write.
//!
//! Filling an empty entry and giving one more rights need no window: every translation that an
//! external MMU may hold stays right. Copy-on-write needs one: `cow` decides it for small pages,
//! `huge` for huge ones. A first write to a private page of an object finds no entry to change, and
//! `file` copies it without a window.
//!
//! | file | holds |
//! | --- | --- |
//! | this one | the decision, the rights that a VMA gives, the patience of an access |
//! | `access` | loads and stores of a processor, which fault until the entry allows them |
//! | `anon` | private anonymous memory: the zero page, new frames |
//! | `anon_folio` | … of which a folio comes in at once |
//! | `cow` | a write to a read-only page: the decision whether to copy; unsharing |
//! | `device` | pages that go to a device and come home |
//! | `entries` | how a fault reads an entry, makes its table, and puts a frame in |
//! | `file` | pages of objects: read, private write, shared write |
//! | `folio` | pages of an object that came in together, mapped together |
//! | `follow` | pages for others than the program itself: another process, I/O |
//! | `huge` | pages of 2 MiB of private memory |
//! | `hugetlb` | huge pages of a pool |
//! | `huge_object` | pages of 2 MiB of an object |
//! | `nonlinear` | entries that name a page of their object |
//! | `populate` | faulting in ranges ahead of use |
//! | `scope` | all that a fault works with; its window, opened when the mmap lock is released |
//! | `shared_table` | tables of huge pages of a pool that several mappings share |
//! | `stack_growth` | a stack that extends down to the fault |
//! | `swap` | pages in swap |
//! | `userfault` | faults that userfaultfd handles |

pub(in crate::mm) mod access;
mod anon;
mod anon_folio;
pub(in crate::mm) mod cow;
pub(in crate::mm) mod device;
pub(in crate::mm) mod entries;
pub(in crate::mm) mod file;
pub(in crate::mm) mod folio;
pub(in crate::mm) mod follow;
pub(in crate::mm) mod huge;
pub(in crate::mm) mod huge_object;
pub(in crate::mm) mod hugetlb;
pub(in crate::mm) mod nonlinear;
pub(in crate::mm) mod populate;
pub(in crate::mm) mod scope;
mod shared_table;
mod stack_growth;
pub(in crate::mm) mod swap;
mod userfault;

use super::{
    entry::{
        flags::VmFlags,
        pte::{RawPte, Rights},
    },
    space::Mm,
    vma::Vma,
};
use crate::{
    addr::{TASK_PAGES, Vpn, VpnRange},
    ctx::{Below, Cx, Sleepable, rank},
    error::{FaultError, ObjectError},
    notifier::Access,
    trace,
};
use entries::SeenEntry;
use scope::FaultScope;

/// The user of the page that a fault makes present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum User {
    /// The program itself.
    Program,
    /// A driver, which cannot have secret memory (`vma_is_secretmem`).
    Driver,
}

/// The result of a step of a fault.
enum FaultStep {
    /// The page is present, or nearer to it: the access tries again.
    Taken,
    /// A stack starts above the page: it must grow first, which needs the lock exclusively.
    GrowStack,
}

/// The most steps of one access that may be repeated because of its object: far more often than a
/// page can be read in, and reclaimed or cut off again, between two steps.
const PATIENCE: u32 = 4096;

/// The number of steps of one access that had to be repeated because of the object behind its page.
///
/// A fault may find that its page was read in only now, or was cut off before it could be locked;
/// then it begins anew. Each time another thread has made progress, so only an object that never
/// gives out its page would keep an access for ever.
#[derive(Debug, Default)]
pub(in crate::mm) struct Patience(u32);

impl Patience {
    /// Returns `Ok` if the access may fault again after the outcome `step`; else the error with
    /// which it ends.
    pub(in crate::mm) fn allow_retry(
        &mut self,
        step: Result<(), FaultError>,
    ) -> Result<(), FaultError> {
        let again = |why| matches!(why, ObjectError::Again | ObjectError::NotItsPage(_));
        match step {
            Err(FaultError::Object { why, .. }) if again(why) && self.0 < PATIENCE => {
                self.0 += 1;
                Ok(())
            }
            step => step,
        }
    }
}

impl Mm {
    /// Takes one step of a fault at page `at` for an access to byte `addr`
    /// (`do_user_addr_fault`). An access that still does not go through faults again.
    pub(in crate::mm) fn fault_in<R: Below<rank::Mmap>>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        at: Vpn,
        addr: u64,
        access: Access,
    ) -> Result<(), FaultError> {
        self.fault_step(cx, at, addr, (access, access), User::Program)
    }
    /// Takes one step of a fault as [`fault_in`](Self::fault_in) does, for a driver.
    pub(in crate::mm) fn fault_in_for_driver<R: Below<rank::Mmap>>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        at: Vpn,
        addr: u64,
        access: Access,
    ) -> Result<(), FaultError> {
        self.fault_step(cx, at, addr, (access, access), User::Driver)
    }
    /// Takes one step of the fault that a write would take, needing no more than the right to
    /// read: a private page becomes one that no other process has, with the rights of its mapping.
    /// A driver that exports a frame needs this, since its page must not be copied later.
    ///
    /// [`FaultScope::unshare`] differs: the entry stays read-only there, as for
    /// `FAULT_FLAG_UNSHARE`.
    pub(in crate::mm) fn fault_for_pin<R: Below<rank::Mmap>>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        at: Vpn,
        addr: u64,
    ) -> Result<(), FaultError> {
        self.fault_step(cx, at, addr, (Access::Read, Access::Write), User::Driver)
    }
    /// Faults as for `makes`, if the VMA allows `needs` and its memory is for this user. In shared
    /// memory both are `needs`.
    fn fault_step<R: Below<rank::Mmap>>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        at: Vpn,
        addr: u64,
        (needs, makes): (Access, Access),
        user: User,
    ) -> Result<(), FaultError> {
        if at.0 >= TASK_PAGES {
            return Err(FaultError::NotMapped(addr));
        }
        let (step, _) = self.with_fault_scope(cx, VpnRange::single(at), |scope| {
            let layout = scope.layout;
            scope.byte = Some(addr);
            match layout.vmas.find(at) {
                Some(vma) if vma.start() <= at => {
                    if user == User::Driver && vma.is_secret() {
                        return Err(FaultError::Secret(at.addr()));
                    }
                    if !vma.allows(needs) {
                        return Err(FaultError::Denied(addr));
                    }
                    let shared = vma.flags.contains(VmFlags::SHARED);
                    let access = if shared { needs } else { makes };
                    let taken = scope.fault(vma, at, access);
                    taken
                        .map_err(|e| e.at_byte(addr))
                        .map(|()| FaultStep::Taken)
                }
                Some(vma) if vma.flags.contains(VmFlags::GROWSDOWN) => Ok(FaultStep::GrowStack),
                _ => Err(FaultError::NotMapped(addr)),
            }
        });
        match step {
            Ok(FaultStep::Taken) => Ok(()),
            Ok(FaultStep::GrowStack) => self
                .grow_stack(cx, at)
                .map_err(|()| FaultError::NotMapped(addr)),
            Err(why) if self.machine().make_room(cx, &why) => Ok(()),
            Err(why) => Err(why),
        }
    }
}

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
        match self.notes_writes() || self.is_uffd_wp() {
            true => self.read_only(),
            false => self.object_rights(),
        }
    }
    /// Returns the rights of an entry that maps the object's own page: a private mapping must copy
    /// it on a write.
    pub(in crate::mm) fn object_rights(&self) -> Rights {
        match self.flags.contains(VmFlags::SHARED) {
            true => self.rights(),
            false => self.read_only(),
        }
    }
}

impl FaultScope<'_> {
    /// Takes one step towards a page at `at` that is present for `access`, which `vma` allows.
    pub(in crate::mm) fn fault(
        &mut self,
        vma: &Vma,
        at: Vpn,
        access: Access,
    ) -> Result<(), FaultError> {
        let _fault = trace::fault(at, access);
        if let Some(file) = vma.hugetlb() {
            return self.fault_hugetlb(vma, file, at, access);
        }
        let SeenEntry {
            pte: seen,
            has_leaf,
            is_huge,
        } = self.look_at_leaf(at)?;
        if seen.is_wp_marker() && !vma.is_uffd_wp() {
            return Ok(self.clear_marker(at)?);
        }
        if seen.is_vacant() && self.layout.released && !vma.flags.contains(VmFlags::SHARED) {
            return Err(FaultError::Released(at.addr())); // `check_stable_address_space`
        }
        if !has_leaf && self.fault_huge(vma, at, access)? {
            return Ok(());
        }
        match seen {
            pte if pte.is_vacant() => match &vma.file {
                None => self.fault_anonymous(vma, at, access, has_leaf),
                Some(file) => self.fault_file(vma, file.object().as_ref(), at, access),
            },
            pte if pte.is_guard() => Err(FaultError::Guarded(at.addr())),
            pte if pte.is_poison() => Err(FaultError::Poisoned(at.addr())),
            pte if pte.of_device().is_some() => self.fault_on_device(vma, at, pte),
            pte if pte.is_present() && access == Access::Write && !pte.may_write() => {
                self.fault_protected(vma, at, (pte, is_huge))
            }
            pte => match (pte.file_index(), pte.swap_slot()) {
                (Some(index), _) => {
                    let object = vma
                        .object()
                        .expect("only a mapping of an object names its pages")
                        .as_ref();
                    self.fault_nonlinear(vma, object, (at, pte), index, access)
                }
                (None, Some(slot)) => self.fault_swapped(vma, at, access, pte, slot),
                // Another thread was first, or the page moves.
                (None, None) => {
                    self.wait_for_migration(pte);
                    Ok(())
                }
            },
        }
    }
    /// Waits until the page of a migration entry has arrived (`migration_entry_wait`); returns at
    /// once for other entries.
    ///
    /// A migration holds the lock of the old frame until its entries are mappings again, so the
    /// wait is for that lock.
    pub(in crate::mm) fn wait_for_migration(&mut self, entry: RawPte) {
        let mem = self.lease.mm.machine().mem();
        if let Some(pfn) = entry.migrating() {
            mem.wait_unlocked(&mut self.lease.cx, pfn);
        }
    }
}

impl FaultError {
    /// Reports byte `addr`, which was accessed, instead of the first byte of its page.
    pub(in crate::mm) fn at_byte(self, addr: u64) -> Self {
        match self {
            Self::Guarded(_) => Self::Guarded(addr),
            Self::Beyond(_) => Self::Beyond(addr),
            Self::Released(_) => Self::Released(addr),
            Self::Poisoned(_) => Self::Poisoned(addr),
            Self::DeviceLost(_) => Self::DeviceLost(addr),
            Self::Unhandled(_) => Self::Unhandled(addr),
            e => e,
        }
    }
}
