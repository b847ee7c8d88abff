//! Files that are open for transfers past the cache of their object: `O_DIRECT`.

use super::{File, FileMode, MemoryObject, sealed, sealed::Direct};
use crate::{ctx::CallCx, error::ObjectError};
use std::sync::Arc;

/// The bytes of a sector: offsets and lengths of direct transfers are multiples of it.
pub(crate) const SECTOR: u64 = 512;

impl File {
    /// Opens an object for transfers that bypass its cache, if it has one (`O_DIRECT`). Objects in
    /// memory have none: their transfers are the usual ones.
    pub fn open_direct(object: Arc<dyn MemoryObject>, mode: FileMode) -> Arc<Self> {
        Self::opened(object, mode, true)
    }
    /// Returns the way past the cache, for a file that is open for it; `None`: transfers go
    /// through the cache.
    pub(crate) fn direct(&self) -> Option<&dyn Direct> {
        match self.is_direct {
            true => self.object().direct(sealed::Ours),
            false => None,
        }
    }
    /// Checks that a direct write is one of whole sectors. The object is prepared for it by
    /// then, as on Linux, which finds out when it makes the request for the disk.
    pub(crate) fn check_direct(offset: u64, len: usize) -> Result<(), ObjectError> {
        match (offset | len as u64).is_multiple_of(SECTOR) {
            true => Ok(()),
            false => Err(ObjectError::Unaligned { offset, len }),
        }
    }
    /// Reads bytes directly: `pread` with `O_DIRECT`.
    pub(super) fn read_direct(
        &self,
        direct: &dyn Direct,
        mut cx: CallCx<'_>,
        offset: u64,
        out: &mut [u8],
    ) -> Result<usize, ObjectError> {
        if out.is_empty() || offset >= self.object().size() {
            return Ok(0);
        }
        direct.begin_read(&mut cx, offset, out.len())?;
        let len = out.len();
        match direct.whole_sectors(offset, len)? == len {
            true => direct.read(offset, out),
            false => Err(ObjectError::Unaligned { offset, len }),
        }
    }
    /// Writes bytes directly: `pwrite` with `O_DIRECT`.
    pub(super) fn write_direct(
        direct: &dyn Direct,
        mut cx: CallCx<'_>,
        offset: u64,
        bytes: &[u8],
    ) -> Result<usize, ObjectError> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let is_gone = direct.begin_write(&mut cx, offset, bytes.len())?;
        Self::check_direct(offset, bytes.len())?;
        match is_gone {
            true => {
                let end = offset + bytes.len() as u64;
                let written = direct.write(&mut cx, offset, bytes);
                let ended = direct.end_write(&mut cx, offset..end, written.is_ok());
                written.and(ended).map(|()| bytes.len())
            }
            false => direct.write_through(&mut cx, offset, bytes),
        }
    }
}
