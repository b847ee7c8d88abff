//! Bytes between a file and the memory of a program, past the cache of the file: `pread` and
//! `pwrite` with `O_DIRECT` (`iomap_dio_rw`).
//!
//! The file is made ready first; only then are the pages of the memory made present, as many as one
//! request takes, and pinned while bytes move, by their frames. A page that cannot be had fails the
//! whole call, though the bytes of the requests before it have moved.

use super::pin::HeldPages;
use crate::mm::{
    fault::follow::{Hold, PinKind},
    space::Mm,
};
use crate::{
    addr::PAGE_SIZE,
    ctx::CallCx,
    error::{FaultError, ObjectError, TransferError},
    file::{File, SECTOR, sealed::Direct},
    notifier::Access,
};

/// The most bytes of one request (`BIO_MAX_VECS` pages).
const REQUEST: usize = 256 * PAGE_SIZE as usize;

impl Mm {
    /// Reads bytes of the file's store to memory. Returns how many of them are the file's; the rest
    /// of the memory is zero.
    pub(super) fn read_direct(
        &self,
        cx: &mut CallCx<'_>,
        (file, disk, offset): (&File, &dyn Direct, u64),
        addr: u64,
        len: usize,
    ) -> Result<usize, TransferError> {
        if len == 0 || offset >= file.object().size() {
            return Ok(0);
        }
        let failed = TransferError::File;
        disk.begin_read(cx, offset, len).map_err(failed)?;
        let whole = disk.whole_sectors(offset, len).map_err(failed)?;
        let mut bytes = vec![0; whole.min(REQUEST)];
        let mut moved = 0;
        let mut own = 0;
        while moved < whole {
            let part = &mut bytes[..(whole - moved).min(REQUEST)];
            let there = addr + moved as u64;
            let (held, ready, why) = self.hold(cx, there, part.len(), Access::Write);
            let part = &mut part[..ready];
            own += disk.read(offset + moved as u64, part).map_err(failed)?;
            held.write_at(0, part);
            if let Some(why) = why {
                return Err(TransferError::Memory(why));
            }
            moved += ready;
        }
        match whole == len {
            true => Ok(own),
            false => Err(failed(ObjectError::Unaligned { offset, len })),
        }
    }
    /// Writes bytes of memory to the file's store.
    pub(super) fn write_direct(
        &self,
        cx: &mut CallCx<'_>,
        (disk, offset): (&dyn Direct, u64),
        addr: u64,
        len: usize,
    ) -> Result<usize, TransferError> {
        if len == 0 {
            return Ok(0);
        }
        let failed = TransferError::File;
        let direct = disk.begin_write(cx, offset, len).map_err(failed)?;
        File::check_direct(offset, len).map_err(failed)?;
        let mut moved = 0;
        let written = self.write_requests(cx, (disk, offset, direct), (addr, len), &mut moved);
        if direct && moved > 0 {
            let range = offset..offset + moved as u64;
            let grows = match written {
                Ok(()) => true,
                // On ext4 a request that breaks off inside of a block counts as far as it came.
                Err(TransferError::Memory(_)) => !range.end.is_multiple_of(PAGE_SIZE),
                Err(_) => false,
            };
            let ended = disk.end_write(cx, range, grows);
            ended.map_err(failed)?;
        }
        written.map(|()| moved)
    }
    /// Writes request after request, and counts the bytes that have `moved`.
    fn write_requests(
        &self,
        cx: &mut CallCx<'_>,
        (disk, offset, direct): (&dyn Direct, u64, bool),
        (addr, len): (u64, usize),
        moved: &mut usize,
    ) -> Result<(), TransferError> {
        let mut bytes = vec![0; len.min(REQUEST)];
        while *moved < len {
            let part = &mut bytes[..(len - *moved).min(REQUEST)];
            let there = addr + *moved as u64;
            let (held, ready, why) = self.hold(cx, there, part.len(), Access::Read);
            let part = &mut part[..ready];
            held.read_at(0, part);
            let at = offset + *moved as u64;
            let written = match direct {
                _ if ready == 0 => Ok(()),
                true => disk.write(cx, at, part),
                false => disk.write_through(cx, at, part).map(|_| ()),
            };
            *moved += ready;
            written.map_err(TransferError::File)?;
            if let Some(why) = why {
                return Err(TransferError::Memory(why));
            }
        }
        Ok(())
    }
    /// Makes the pages of `[addr, addr + len)` present for an access and pins them
    /// (`iov_iter_extract_pages`). Returns them, the number of bytes from `addr` on that are there,
    /// in whole sectors, and the error that stopped it.
    fn hold(
        &self,
        cx: &mut CallCx<'_>,
        addr: u64,
        len: usize,
        access: Access,
    ) -> (HeldPages, usize, Option<FaultError>) {
        let range = (addr, addr + len as u64);
        let (held, failed) = self.hold_pages(cx, range, access, Hold::Pin(PinKind::Short));
        let sector = usize::try_from(SECTOR).expect("small");
        let ready = match failed {
            Some(_) => held.len() - held.len() % sector,
            None => held.len(),
        };
        (held, ready, failed)
    }
}
