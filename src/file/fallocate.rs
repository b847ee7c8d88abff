//! Changes of the blocks of a file: `fallocate` (`vfs_fallocate`).

use super::File;
use crate::{ctx::CallCx, error::ObjectError};
use bitflags::bitflags;

bitflags! {
    /// The mode of `fallocate`, with Linux's values. At most one of the flags besides `KEEP_SIZE`
    /// may be set; without any, the call allocates.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct FallocateMode: u32 {
        /// The size stays, even if the range ends behind it.
        const KEEP_SIZE = 0x01;
        /// Make the range a hole. Needs `KEEP_SIZE`.
        const PUNCH_HOLE = 0x02;
        /// Take the range out: what lies behind it moves down.
        const COLLAPSE_RANGE = 0x08;
        /// Make the range read zero.
        const ZERO_RANGE = 0x10;
        /// Put a hole in front of what lies there, which moves up.
        const INSERT_RANGE = 0x20;
        /// Give the file blocks of its own. No object here shares blocks, and none knows the mode.
        const UNSHARE_RANGE = 0x40;
        /// Write zeros by the device. No object here has such a device.
        const WRITE_ZEROES = 0x80;
    }
}

impl FallocateMode {
    /// Returns true if Linux knows such a mode.
    fn is_known(self) -> bool {
        let keeps = self.contains(Self::KEEP_SIZE);
        match self - Self::KEEP_SIZE {
            Self::PUNCH_HOLE => keeps,
            Self::COLLAPSE_RANGE | Self::INSERT_RANGE | Self::WRITE_ZEROES => !keeps,
            mode => mode.is_empty() || mode == Self::ZERO_RANGE || mode == Self::UNSHARE_RANGE,
        }
    }
}

impl File {
    /// Changes the blocks of bytes `[from, from + len)`, as the mode says: `fallocate`.
    ///
    /// Shared memory gets a page for each page of the range, or loses them. A file on disk can do
    /// all of it but `UNSHARE_RANGE` and `WRITE_ZEROES`; a range that is taken out or put in is one
    /// of whole blocks before the end, and mappings of all that moves are dropped, private copies
    /// included.
    ///
    /// # Errors
    ///
    /// In this order: [`ObjectError::Range`] for an empty range, or a number above `i64::MAX`;
    /// [`ObjectError::Unsupported`] for a mode that is unknown; [`ObjectError::Access`] if the file
    /// was opened for reading only; [`ObjectError::TooLarge`] for an end above `i64::MAX`; the
    /// errors of the object. Nothing was changed then, unless a store failed half-way:
    /// see [`Store::collapse`](super::Store::collapse).
    pub fn fallocate(
        &self,
        cx: CallCx<'_>,
        mode: FallocateMode,
        from: u64,
        len: u64,
    ) -> Result<(), ObjectError> {
        const MOST: u64 = i64::MAX as u64;
        if len == 0 || len > MOST || from > MOST {
            return Err(ObjectError::Range { from, len });
        }
        if !mode.is_known() {
            return Err(ObjectError::Unsupported);
        }
        let object = self.writable()?;
        if from + len > MOST {
            return Err(ObjectError::TooLarge(from + len));
        }
        object.fallocate(cx, mode, from, len)
    }
    /// Makes bytes `[from, from + len)` read zero: [`fallocate`](Self::fallocate) with `PUNCH_HOLE`
    /// and `KEEP_SIZE`.
    ///
    /// # Errors
    ///
    /// Those of [`fallocate`](Self::fallocate).
    pub fn punch_hole(&self, cx: CallCx<'_>, from: u64, len: u64) -> Result<(), ObjectError> {
        let mode = FallocateMode::PUNCH_HOLE | FallocateMode::KEEP_SIZE;
        self.fallocate(cx, mode, from, len)
    }
}
