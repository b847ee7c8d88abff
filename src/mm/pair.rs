//! Two address spaces at once.
//!
//! Guarantee: no two threads that take two mmap locks can wait for each other. There is no other way to hold two than
//! through here: with one held, the token is past the rank of the mmap lock. Here they are taken in the order of their
//! addresses; one address space twice is refused.

use super::{
    Mm,
    access::place,
    guard::{Held, Lease},
    later::Later,
    layout::Layout,
    mmap_lock::ReadGuard,
    patience::Patience,
};
use crate::{
    addr::{VpnRange, by_page, chunks},
    ctx::{Below, Cx, Sleepable, rank},
    error::{CopyError, FaultError, SameMm},
    notifier::Access,
};

/// The mmap locks of two address spaces are held shared.
pub struct MmapReadPair<'g> {
    first: Half<'g>,
    second: Half<'g>,
    cx: Cx<'g, rank::Mmap, Sleepable>,
}

struct Half<'g> {
    mm: &'g Mm,
    layout: ReadGuard<'g, Layout>,
}

impl Half<'_> {
    fn held<'h>(&'h self, cx: &'h mut Cx<'_, rank::Mmap, Sleepable>) -> Held<'h> {
        Held {
            layout: &self.layout,
            lease: Lease {
                mm: self.mm,
                cx: cx.reborrow(),
            },
            later: Later::Never,
        }
    }
}

impl Mm {
    /// Takes the mmap locks of this address space and of another, shared.
    ///
    /// # Errors
    ///
    /// [`SameMm`]: they are one.
    ///
    /// # Panics
    ///
    /// If the token is of a thread that entered another machine than either.
    pub fn read_with<'g, R: Below<rank::Mmap>>(
        &'g self,
        other: &'g Self,
        cx: &'g mut Cx<'_, R, Sleepable>,
    ) -> Result<MmapReadPair<'g>, SameMm> {
        self.check_token(cx);
        other.check_token(cx);
        if std::ptr::eq(self, other) {
            return Err(SameMm);
        }
        let half = |mm: &'g Self| Half {
            mm,
            layout: mm.layout.read(Some(VpnRange::ALL)),
        };
        let (first, second);
        if std::ptr::from_ref(self) < std::ptr::from_ref(other) {
            first = half(self);
            second = half(other);
        } else {
            second = half(other);
            first = half(self);
        }
        Ok(MmapReadPair {
            first,
            second,
            cx: cx.descend(),
        })
    }

    /// Copies `len` bytes from address `from` of this address space to address `to` of another, with both layouts standing
    /// still, and faults as the programs themselves would (`process_vm_readv`).
    ///
    /// # Errors
    ///
    /// [`CopyError`]; the pages before the failing one have been copied.
    pub fn copy_to(
        &self,
        cx: &mut Cx<'_, rank::Idle, Sleepable>,
        from: u64,
        (other, to): (&Self, u64),
        len: usize,
    ) -> Result<(), CopyError> {
        self.read_with(other, cx)?.copy(from, to, len)
    }
}

impl MmapReadPair<'_> {
    /// Copies bytes from the first address space to the second.
    fn copy(&mut self, from: u64, to: u64, len: usize) -> Result<(), CopyError> {
        let mem = self.first.mm.machine().mem();
        let mut bytes = Vec::new();
        let mut to = to;
        for (page, offset, n) in chunks(from, len) {
            bytes.resize(n, 0);
            let mut first = self.first.held(&mut self.cx);
            let addr = from.max(page.addr());
            first
                .touch(page, addr, Access::Read, |pfn| {
                    mem.read(pfn, offset, &mut bytes)
                })
                .map_err(CopyError::From)?;
            by_page(to, &bytes[..], |page, offset, part| {
                let mut second = self.second.held(&mut self.cx);
                let addr = to.max(page.addr());
                second
                    .touch(page, addr, Access::Write, |pfn| {
                        mem.write(pfn, offset, part)
                    })
                    .map_err(CopyError::To)
            })?;
            to += n as u64;
        }
        Ok(())
    }
}

impl Held<'_> {
    /// Runs `f` on the frame at `at` while its entry is locked, faulting until the entry allows the access. A stack does not
    /// grow.
    fn touch(
        &mut self,
        at: crate::addr::Vpn,
        addr: u64,
        access: Access,
        f: impl FnOnce(crate::addr::Pfn),
    ) -> Result<(), FaultError> {
        let layout = self.layout;
        let mut f = f;
        let mut patience = Patience::default();
        loop {
            let mm = self.lease.mm;
            f = match mm.try_touch(&mut self.lease.cx, at, access, f) {
                Ok(()) => return Ok(()),
                Err(f) => f,
            };
            let vma = layout.vmas.get(at).ok_or(FaultError::NotMapped(addr))?;
            if !vma.allows(access) {
                return Err(FaultError::Denied(addr));
            }
            let step = self.fault(vma, at, access);
            patience.bears(step.map_err(|e| place(e, addr)))?;
        }
    }
}

impl std::fmt::Debug for MmapReadPair<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MmapReadPair").finish_non_exhaustive()
    }
}
