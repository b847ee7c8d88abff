//! Bytes between a file and the memory of a program: `pread` and `pwrite` (`filemap_read`,
//! `generic_perform_write`).
//!
//! Neither holds a lock of the file while memory is faulted in, since the memory may be a mapping
//! of that file. So a write first takes the bytes that are present, and the file may grow by that;
//! a page that is faulted in after that may have been beyond the file's end before.

use crate::mm::{fault::Patience, space::Mm};
use crate::{
    addr::{PAGE_SIZE, TASK_SIZE},
    ctx::CallCx,
    error::{FaultError, ObjectError, TransferError},
    file::File,
};

const PAGE: usize = PAGE_SIZE as usize;
/// The greatest number of bytes that one call copies (`MAX_RW_COUNT`).
const MOST: usize = (1 << 31) - PAGE;

impl Mm {
    /// Copies `len` bytes of a file, from `offset` on, to address `addr` (`pread`). Returns the
    /// number of bytes copied: fewer than `len` if the file ends or a page is missing, and at most
    /// 2 GiB less a page.
    ///
    /// # Errors
    ///
    /// [`TransferError`], if not even one byte could be copied.
    pub fn read_file(
        &self,
        cx: &mut CallCx<'_>,
        (file, offset): (&File, u64),
        addr: u64,
        len: usize,
    ) -> Result<usize, TransferError> {
        let len = self.check_transfer(cx, file.is_readable(), addr, len)?;
        if let Some(disk) = file.direct() {
            return self.read_direct(cx, (file, disk, offset), addr, len);
        }
        let mut bytes = [0; PAGE];
        let mut done = 0;
        let mut read_to = None;
        let mut ended = Ok(());
        while done < len && ended.is_ok() {
            let from = offset.saturating_add(done as u64);
            let part = &mut bytes[..in_page(from, len - done)];
            let put = match file.read_part(cx.reborrow(), from, part, len - done) {
                Ok(0) => break,
                Ok(n) => self.write_up_to(cx, addr + done as u64, &part[..n]),
                Err(why) if self.machine().make_room(cx, &why) => continue,
                Err(why) => {
                    ended = Err(TransferError::File(why));
                    break;
                }
            };
            done += put.0;
            read_to = Some(offset.saturating_add(done as u64));
            ended = put.1.map_or(Ok(()), |why| Err(TransferError::Memory(why)));
        }
        if let Some(end) = read_to {
            file.has_read_to(end);
        }
        ended.map_or_else(|why| some(done, why), |()| Ok(done))
    }
    /// Copies `len` bytes from address `addr` to a file, from `offset` on (`pwrite`). Returns the
    /// number of bytes copied: fewer than `len` if a page is missing, and at most 2 GiB less a
    /// page.
    ///
    /// A write that fails because of the memory has begun all the same, as on Linux: the file
    /// reaches up to `offset` afterwards, and a hole there has become a page
    /// ([`MemoryObject::write_begun`]).
    ///
    /// # Errors
    ///
    /// [`TransferError`], if not even one byte could be copied.
    ///
    /// [`MemoryObject::write_begun`]: crate::file::MemoryObject::write_begun
    pub fn write_file(
        &self,
        cx: &mut CallCx<'_>,
        (file, offset): (&File, u64),
        addr: u64,
        len: usize,
    ) -> Result<usize, TransferError> {
        let len = self.check_transfer(cx, file.is_writable(), addr, len)?;
        if let Some(disk) = file.direct() {
            return self.write_direct(cx, (disk, offset), addr, len);
        }
        let mut done = 0;
        while done < len {
            let there = offset.saturating_add(done as u64);
            let part = in_page(there, len - done);
            match self.write_part(cx, (file, there), addr + done as u64, part) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(why) => return some(done, why),
            }
        }
        Ok(done)
    }
    /// Checks a transfer before it begins; returns how many of the `len` bytes one call transfers.
    ///
    /// A file that was not opened for the transfer is refused first, then memory above the top of
    /// the address space (`access_ok`).
    fn check_transfer(
        &self,
        cx: &CallCx<'_>,
        allowed: bool,
        addr: u64,
        len: usize,
    ) -> Result<usize, TransferError> {
        self.check_token(cx);
        if !allowed {
            return Err(TransferError::File(ObjectError::Access));
        }
        if addr > TASK_SIZE || len as u64 > TASK_SIZE - addr {
            return Err(TransferError::Memory(FaultError::NotMapped(addr)));
        }
        Ok(len.min(MOST))
    }
    /// Writes bytes to one page of the file: at least one, unless the object takes none.
    fn write_part(
        &self,
        cx: &mut CallCx<'_>,
        (file, offset): (&File, u64),
        addr: u64,
        mut len: usize,
    ) -> Result<usize, TransferError> {
        let mut bytes = [0; PAGE];
        let mut patience = Patience::default();
        loop {
            let had = self.read_present(cx, addr, &mut bytes[..len]);
            let taken = match file.write_begun(cx.reborrow(), offset, &bytes[..had], len) {
                Err(why) if self.machine().make_room(cx, &why) => continue,
                taken => taken.map_err(TransferError::File)?,
            };
            if taken > 0 || had == len {
                return Ok(taken);
            }
            if had > 0 {
                // Only these, which are present.
                len = had;
                continue;
            }
            if let (0, Some(why)) = self.read_up_to(cx, addr, &mut bytes[..len]) {
                return Err(TransferError::Memory(why));
            }
            let gone_again = FaultError::Object {
                addr,
                why: ObjectError::Again,
            };
            patience
                .allow_retry(Err(gone_again))
                .map_err(TransferError::Memory)?;
        }
    }
}

/// Returns how many of `len` bytes from `at` on lie in the page of `at`.
fn in_page(at: u64, len: usize) -> usize {
    let rest = usize::try_from(PAGE_SIZE - at % PAGE_SIZE).expect("within a page");
    len.min(rest)
}

fn some(done: usize, why: TransferError) -> Result<usize, TransferError> {
    if done > 0 { Ok(done) } else { Err(why) }
}
