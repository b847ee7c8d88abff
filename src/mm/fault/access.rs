//! What a processor does: loads and stores of bytes, with a fault where the page table does not allow them.
//!
//! Guarantee: an access sees or changes a frame only while the entry that maps it is in the table, since it holds
//! the lock of that entry's leaf; so a stale translation is impossible here. Within one page an access is atomic
//! against page-table changes, across pages it is not, as in hardware.

use super::patience::Patience;
use crate::ctx::CallCx;

use crate::mm::{
    entry::{flags::VmFlags, pte::RawPte},
    guard::{Deferral, MmapPin},
    page_table::{LeafAt, LockedLeaf},
    space::Mm,
};
use crate::{
    addr::{Pfn, TASK_PAGES, Vpn, VpnRange, by_page},
    ctx::{Cx, Sleepable, rank},
    error::FaultError,
    notifier::Access,
};

impl Mm {
    /// Loads one byte.
    ///
    /// # Errors
    ///
    /// [`FaultError`]: what would have been SIGSEGV or SIGBUS, or memory ran out.
    pub fn load(&self, cx: &mut CallCx<'_>, addr: u64) -> Result<u8, FaultError> {
        let mut byte = [0];
        self.read_bytes(cx, addr, &mut byte)?;
        Ok(byte[0])
    }
    /// Stores one byte.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load); a copy-on-write opens its window before the store is done.
    pub fn store(&self, cx: &mut CallCx<'_>, addr: u64, byte: u8) -> Result<(), FaultError> {
        self.write_bytes(cx, addr, &[byte])
    }
    /// Loads `out.len()` bytes.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load); the pages before the failing one have been read.
    pub fn read_bytes(
        &self,
        cx: &mut CallCx<'_>,
        addr: u64,
        out: &mut [u8],
    ) -> Result<(), FaultError> {
        let mem = self.machine().mem();
        by_page(addr, out, |at, offset, part| {
            self.touch(cx, at, addr, Access::Read, |pfn| {
                mem.read(pfn, offset, part)
            })
        })
    }
    /// Stores all of `bytes`.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load); the pages before the failing one have been written.
    pub fn write_bytes(
        &self,
        cx: &mut CallCx<'_>,
        addr: u64,
        bytes: &[u8],
    ) -> Result<(), FaultError> {
        let mem = self.machine().mem();
        by_page(addr, bytes, |at, offset, part| {
            self.touch(cx, at, addr, Access::Write, |pfn| {
                mem.write(pfn, offset, part)
            })
        })
    }

    /// Loads bytes up to the first page that cannot be read: how many, and why no more (`copy_from_user`).
    pub(in crate::mm) fn read_up_to(
        &self,
        cx: &mut CallCx<'_>,
        addr: u64,
        out: &mut [u8],
    ) -> (usize, Option<FaultError>) {
        let mem = self.machine().mem();
        let mut done = 0;
        let read = by_page(addr, out, |at, offset, part| {
            let n = part.len();
            self.touch(cx, at, addr, Access::Read, |pfn| {
                mem.read(pfn, offset, part);
            })?;
            done += n;
            Ok(())
        });
        (done, read.err())
    }
    /// Loads bytes up to the first page that is not there, and brings none in: how many (`copy_from_user_atomic`).
    pub(in crate::mm) fn read_present(
        &self,
        cx: &mut CallCx<'_>,
        addr: u64,
        out: &mut [u8],
    ) -> usize {
        let mem = self.machine().mem();
        let pinned = cx.pin();
        let pin = self.table.pin(pinned.guard());
        let mut done = 0;
        let _ended: Result<(), ()> = by_page(addr, out, |at, offset, part| {
            let leaf = self.table.leaf(at, pin).ok_or(())?;
            let leaf = leaf.lock().ok_or(())?;
            let pfn = hit(&leaf, at, Access::Read).ok_or(())?;
            mem.read(pfn, offset, part);
            done += part.len();
            Ok(())
        });
        done
    }
    /// Stores bytes up to the first page that cannot be written: how many, and why no more (`copy_to_user`).
    pub(in crate::mm) fn write_up_to(
        &self,
        cx: &mut CallCx<'_>,
        addr: u64,
        bytes: &[u8],
    ) -> (usize, Option<FaultError>) {
        let mem = self.machine().mem();
        let mut done = 0;
        let written = by_page(addr, bytes, |at, offset, part| {
            self.touch(cx, at, addr, Access::Write, |pfn| {
                mem.write(pfn, offset, part);
            })?;
            done += part.len();
            Ok(())
        });
        (done, written.err())
    }

    /// Runs `f` on the frame at `at` while its entry is locked, faulting until the entry allows the access.
    pub(in crate::mm) fn touch(
        &self,
        cx: &mut CallCx<'_>,
        at: Vpn,
        addr: u64,
        access: Access,
        f: impl FnOnce(Pfn),
    ) -> Result<(), FaultError> {
        // What a signal would report: the address given, or where the access crosses into a page.
        let addr = addr.max(at.addr());
        let mut f = f;
        let mut patience = Patience::default();
        loop {
            f = match self.try_touch(cx, at, access, f) {
                Ok(()) => return Ok(()),
                Err(f) => f,
            };
            patience.bears(self.fault_in(cx, at, addr, access))?;
        }
    }
    /// Runs `f` on the frame at `at` while its entry is locked, if that allows the access; else gives it back.
    #[inline]
    pub(in crate::mm) fn try_touch<R: crate::ctx::Rank, F: FnOnce(Pfn)>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        at: Vpn,
        access: Access,
        f: F,
    ) -> Result<(), F> {
        let pinned = cx.pin();
        let pin = self.table.pin(pinned.guard());
        let Some(leaf) = self.table.leaf(at, pin) else {
            return Err(f);
        };
        let pte = leaf.peek(at);
        if !permits(pte, access) {
            return match access {
                Access::Read if pte.is_none() => self.touch_zero(leaf, at, f),
                _ => Err(f),
            };
        }
        let locked = leaf.lock();
        match locked.as_ref().and_then(|leaf| hit(leaf, at, access)) {
            Some(pfn) => {
                f(pfn);
                Ok(())
            }
            None => Err(f),
        }
    }
    /// The first load from anonymous memory whose table is there: the zero page is mapped and read in one step, as Linux
    /// serves such a fault under the lock of a VMA alone. Where somebody writes, or the memory is of another kind, nothing is
    /// done: a fault decides.
    fn touch_zero<F: FnOnce(Pfn)>(&self, leaf: LeafAt<'_>, at: Vpn, f: F) -> Result<(), F> {
        let Some(layout) = self.layout.try_read() else {
            return Err(f);
        };
        let vma = layout
            .vmas
            .get(at)
            .filter(|vma| vma.file.is_none() && vma.allows(Access::Read));
        // To make a shared table one's own may be refused.
        let (Some(vma), false) = (vma, leaf.is_shared()) else {
            return Err(f);
        };
        let locked = leaf.lock();
        let Some(locked) = locked.filter(|leaf| leaf.get(at).is_none()) else {
            return Err(f);
        };
        let zero = self.machine().mem().zero_pfn();
        locked.set(at, RawPte::zero(zero, vma.read_only()));
        f(zero);
        Ok(())
    }

    /// One step of a page fault, taken by a processor (`do_user_addr_fault`).
    pub(in crate::mm) fn fault_in<R: crate::ctx::Below<rank::Mmap>>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        at: Vpn,
        addr: u64,
        access: Access,
    ) -> Result<(), FaultError> {
        self.fault_step(cx, at, addr, (access, access))
    }
    /// One step towards a page of its own where the mapping is private, as a write would make it, which need not be allowed
    /// (`FAULT_FLAG_UNSHARE`).
    pub(in crate::mm) fn unshare<R: crate::ctx::Below<rank::Mmap>>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        at: Vpn,
        addr: u64,
    ) -> Result<(), FaultError> {
        self.fault_step(cx, at, addr, (Access::Read, Access::Write))
    }
    fn fault_step<R: crate::ctx::Below<rank::Mmap>>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        at: Vpn,
        addr: u64,
        (needs, access): (Access, Access),
    ) -> Result<(), FaultError> {
        if at.0 >= TASK_PAGES {
            return Err(FaultError::NotMapped(addr));
        }
        let mut g = self.lock_shared_over(cx, Some(VpnRange::single(at)));
        let mut held = g.held();
        let layout = held.layout;
        match layout.vmas.find(at) {
            Some(vma) if vma.start() <= at => {
                if !vma.allows(needs) {
                    return Err(FaultError::Denied(addr));
                }
                let shared = vma.flags.contains(VmFlags::SHARED);
                let access = if shared { needs } else { access };
                held.deferral = Deferral::of(self);
                let done = held.fault(vma, at, access).map_err(|e| place(e, addr));
                if let Deferral::Work(work) = held.deferral {
                    let pin = MmapPin::new(self, &g, work.range());
                    drop(g);
                    pin.lease(cx).finish(work);
                }
                done
            }
            Some(vma) if vma.flags.contains(VmFlags::GROWSDOWN) => {
                drop(g);
                self.grow_stack(cx, at)
                    .map_err(|()| FaultError::NotMapped(addr))
            }
            _ => Err(FaultError::NotMapped(addr)),
        }
    }
}

/// Reports the byte that was accessed rather than its page.
pub(in crate::mm) fn place(e: FaultError, addr: u64) -> FaultError {
    match e {
        FaultError::Guarded(_) => FaultError::Guarded(addr),
        FaultError::Beyond(_) => FaultError::Beyond(addr),
        e => e,
    }
}

fn permits(pte: RawPte, access: Access) -> bool {
    pte.is_present()
        && pte.may_read()
        && match access {
            Access::Read => true,
            Access::Write => pte.may_write(),
        }
}

/// The frame, if the entry allows the access; marks it accessed, and dirty by a write.
fn hit(leaf: &LockedLeaf<'_>, at: Vpn, access: Access) -> Option<Pfn> {
    let pte = leaf.get(at);
    if !permits(pte, access) {
        return None;
    }
    let touched = match access {
        Access::Read => pte.mkyoung(),
        Access::Write => pte.mkdirty(),
    };
    if touched != pte {
        leaf.set(at, touched);
    }
    Some(pte.pfn())
}
