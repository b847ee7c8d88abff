//! Bytes between two address spaces: `process_vm_readv` and `process_vm_writev`
//! (`mm/process_vm_access.c`).
//!
//! The other side's pages come first, many at a time, and are held. Only then is this side
//! accessed, as its own program would do. So if a page of the other side is missing, nothing of
//! that page is copied, and this side is not faulted in; if this side fails, the other's pages are
//! present all the same. The call holds one mmap lock at a time, and none while it copies bytes.

use crate::mm::{
    entry::{flags::VmFlags, pte::RawPte},
    fault::Patience,
    fault::scope::FaultScope,
    space::Mm,
    vma::Vma,
};
use crate::{
    addr::{PAGE_SIZE, TASK_SIZE, Vpn, VpnRange, chunks},
    ctx::CallCx,
    error::{CopyError, FaultError},
    frame::{Frame, FrameFlags, PhysMem},
    notifier::Access,
};

/// The number of the other side's pages that are made present before a byte is copied
/// (`PVM_MAX_USER_PAGES`).
const AT_ONCE: usize = 1024;
/// The greatest number of bytes that one call copies (`MAX_RW_COUNT`).
const MOST: usize = (1 << 31) - PAGE_SIZE as usize;

/// Bytes within one page of the other side.
#[derive(Clone, Copy)]
struct Piece {
    page: Vpn,
    /// The address of the first byte, which errors report.
    addr: u64,
    /// The offset of the first byte in the page.
    offset: usize,
    len: usize,
}

impl Mm {
    /// Copies `len` bytes from address `from` of this address space to address `to` of another
    /// (`process_vm_writev`). Returns the number of bytes copied: fewer than `len` if a page of
    /// either side is missing after those, and at most 2 GiB less a page.
    ///
    /// The other side's mappings must allow writes; their pages are faulted in as by a store, but
    /// stacks do not grow. Both may be one address space.
    ///
    /// # Errors
    ///
    /// [`CopyError`], if not even one byte could be copied.
    pub fn copy_to(
        &self,
        cx: &mut CallCx<'_>,
        from: u64,
        (other, to): (&Self, u64),
        len: usize,
    ) -> Result<usize, CopyError> {
        let sides = (from, other, to);
        self.copy_between(cx, sides, len, Access::Write, |cx, here, there, bytes| {
            let (got, why) = self.read_up_to(cx, here, bytes);
            let mem = other.machine().mem();
            let put = other.touch(cx, there.page, there.addr, Access::Write, |pfn| {
                mem.write(pfn, there.offset, &bytes[..got]);
            });
            put.map_err(|e| (0, CopyError::Other(e)))?;
            why.map_or(Ok(()), |e| Err((got, CopyError::Own(e))))
        })
    }
    /// Copies `len` bytes from address `from` of another address space to address `to` of this one
    /// (`process_vm_readv`).
    ///
    /// The other side's mappings must allow reads. A private page that other processes may have as
    /// well is unshared first: its process gets a copy of its own, in a window, as for every reader
    /// that keeps a page (`FAULT_FLAG_UNSHARE`). In all else like [`copy_to`](Self::copy_to).
    ///
    /// # Errors
    ///
    /// [`CopyError`], if not even one byte could be copied.
    pub fn copy_from(
        &self,
        cx: &mut CallCx<'_>,
        to: u64,
        (other, from): (&Self, u64),
        len: usize,
    ) -> Result<usize, CopyError> {
        let sides = (to, other, from);
        self.copy_between(cx, sides, len, Access::Read, |cx, here, there, bytes| {
            let mem = other.machine().mem();
            let got = other.touch(cx, there.page, there.addr, Access::Read, |pfn| {
                mem.read(pfn, there.offset, bytes);
            });
            got.map_err(|e| (0, CopyError::Other(e)))?;
            let (put, why) = self.write_up_to(cx, here, bytes);
            why.map_or(Ok(()), |e| Err((put, CopyError::Own(e))))
        })
    }

    /// Runs `copy` on each piece, when the other side's pages are present, with the address on this
    /// side and a buffer of the piece's length (`process_vm_rw_single_vec`). An error of `copy` has
    /// the number of bytes of the piece that it copied.
    fn copy_between(
        &self,
        cx: &mut CallCx<'_>,
        (here, other, there): (u64, &Self, u64),
        len: usize,
        access: Access,
        mut copy: impl FnMut(&mut CallCx<'_>, u64, Piece, &mut [u8]) -> Result<(), (usize, CopyError)>,
    ) -> Result<usize, CopyError> {
        self.check_token(cx);
        other.check_token(cx);
        let len = len.min(MOST);
        // A range beyond the top of the address space is refused before anything is done
        // (`import_iovec`).
        if here > TASK_SIZE || len as u64 > TASK_SIZE - here {
            return Err(CopyError::Own(FaultError::NotMapped(here)));
        }
        let mut done = 0;
        let some = |done, why| if done > 0 { Ok(done) } else { Err(why) };
        let mut pieces = chunks(there, len).map(|(page, offset, len)| Piece {
            page,
            addr: there.max(page.addr()),
            offset,
            len,
        });
        let mut bytes = [0; PAGE_SIZE as usize];
        let mut present: Vec<(Piece, Option<Frame<'_>>)> = Vec::new();
        loop {
            present.clear();
            let mut missing = None;
            for piece in pieces.by_ref().take(AT_ONCE) {
                match other.make_present(cx, piece.page, piece.addr, access) {
                    Ok(held) => present.push((piece, held)),
                    Err(e) => missing = Some(CopyError::Other(e)),
                }
                if missing.is_some() {
                    break;
                }
            }
            for &(piece, _) in &present {
                let part = &mut bytes[..piece.len];
                match copy(cx, here + done as u64, piece, part) {
                    Ok(()) => done += piece.len,
                    Err((part, why)) => return some(done + part, why),
                }
            }
            match missing {
                Some(why) => return some(done, why),
                None if present.is_empty() => return Ok(done),
                None => {}
            }
        }
    }

    /// Faults until a page is present for an access of another process, and holds it
    /// (`pin_user_pages_remote`). The zero page needs no hold.
    fn make_present(
        &self,
        cx: &mut CallCx<'_>,
        at: Vpn,
        addr: u64,
        access: Access,
    ) -> Result<Option<Frame<'_>>, FaultError> {
        if addr >= TASK_SIZE {
            return Err(FaultError::NotMapped(addr));
        }
        let mem = self.machine().mem();
        let mut patience = Patience::default();
        loop {
            let (step, _) = self.with_fault_scope(cx, VpnRange::single(at), |scope| {
                let layout = scope.layout;
                let vma = layout.vmas.get(at).ok_or(FaultError::NotMapped(addr))?;
                if !is_open_to(vma, access) {
                    return Err(FaultError::Denied(addr));
                }
                let held = scope.hold_page(mem, vma, at, access);
                held.map_err(|e| e.at_byte(addr))
            });
            match step {
                Ok(Some(held)) => return Ok(held),
                Ok(None) => {}
                Err(e) => patience.allow_retry(Err(e))?,
            }
        }
    }
}

/// Returns true if the mapping allows the access (`check_vma_flags`): reading needs `READ`, though
/// a processor could read with any right.
fn is_open_to(vma: &Vma, access: Access) -> bool {
    vma.flags.contains(match access {
        Access::Read => VmFlags::READ,
        Access::Write => VmFlags::WRITE,
    })
}

impl FaultScope<'_> {
    /// Returns the page, held, if it is present for the access; `None` after one step towards that.
    fn hold_page<'m>(
        &mut self,
        mem: &'m PhysMem,
        vma: &Vma,
        at: Vpn,
        access: Access,
    ) -> Result<Option<Option<Frame<'m>>>, FaultError> {
        let mm = self.lease.mm;
        let looked = mm.with_leaf_of(&mut self.lease.cx, at, |leaf| {
            let pte = leaf.get(at);
            let right = access == Access::Read || pte.may_write();
            if !pte.is_present() || !pte.may_read() || !right {
                return None;
            }
            if access == Access::Read && must_unshare(mem, pte) {
                return Some(Err(pte));
            }
            Some(Ok(pte.counted().map(|pfn| mem.get(pfn))))
        });
        match looked.flatten() {
            Some(Ok(held)) => Ok(Some(held)),
            Some(Err(pte)) => self.unshare(vma, at, pte).map(|()| None),
            None => self.fault(vma, at, access).map(|()| None),
        }
    }
}

/// Returns true for a private page that is not exclusive to its entry (`gup_must_unshare`).
fn must_unshare(mem: &PhysMem, pte: RawPte) -> bool {
    pte.counted().is_some_and(|pfn| {
        let kind = FrameFlags::ANON | FrameFlags::ANON_EXCLUSIVE;
        mem.flags(pfn) & kind == FrameFlags::ANON
    })
}
