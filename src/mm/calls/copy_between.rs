//! Bytes between two address spaces: `process_vm_readv` and `process_vm_writev`
//! (`mm/process_vm_access.c`).
//!
//! The other side's pages come first, many at a time, and are pinned. Only then is this side
//! accessed, as its own program would do. So if a page of the other side is missing, nothing of
//! that page is copied, and this side is not faulted in; if this side fails, the other's pages are
//! present all the same. The call holds one mmap lock at a time, and none while it copies bytes.

use crate::mm::{
    fault::follow::{Follow, Hold, PinKind},
    space::Mm,
};
use crate::{
    addr::{PAGE_SIZE, TASK_SIZE, Vpn, chunks},
    ctx::CallCx,
    error::{CopyError, FaultError},
    frame::HeldFrame,
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
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::{Mm, PAGE_SIZE, mm::MmapArgs};
    /// # let machine = emmu::Machine::new(Default::default());
    /// # let mut thread = machine.enter()?;
    /// # let mut cx = thread.cx();
    /// # let mm = emmu::Mm::new(&machine);
    ///
    /// let other = Mm::new(&machine);
    /// let from = mm.mmap(&mut cx, &MmapArgs::anonymous(PAGE_SIZE))?;
    /// let to = other.mmap(&mut cx, &MmapArgs::anonymous(PAGE_SIZE))?;
    /// mm.write_bytes(&mut cx, from, b"letter")?;
    /// assert_eq!(mm.copy_to(&mut cx, from, (&other, to), 6)?, 6);
    /// assert_eq!(other.load(&mut cx, to)?, b'l');
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
        let how = Follow {
            access,
            hold: Hold::Pin(PinKind::Short),
            force: false,
        };
        let mut present: Vec<(Piece, Option<HeldFrame<'_>>)> = Vec::new();
        loop {
            present.clear();
            let mut missing = None;
            for piece in pieces.by_ref().take(AT_ONCE) {
                match other.hold_page(cx, (piece.page, piece.addr), how) {
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
}
