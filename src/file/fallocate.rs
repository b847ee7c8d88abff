//! Changes of the blocks of a file: `fallocate` (`vfs_fallocate`).

use super::{FallocateMode, File};
use crate::{ctx::CallCx, error::ObjectError};

impl File {
    /// Changes the blocks of bytes `[from, from + len)`, as the mode says: `fallocate`.
    ///
    /// Shared memory gets a page for each page of the range, or loses them; a file of huge pages
    /// takes them from its pool, and may end inside of one then. A file on disk can do
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
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::{PAGE_SIZE, file::{FallocateMode, File, FileMode, Shmem}};
    /// # let machine = emmu::Machine::new(Default::default());
    /// # let mut thread = machine.enter()?;
    /// # let mut cx = thread.cx();
    ///
    /// let memory = Shmem::memfd(machine.host(), "example", 2 * PAGE_SIZE)?;
    /// let file = File::open(memory, FileMode::ReadWrite);
    /// file.fallocate(cx.reborrow(), FallocateMode::empty(), 0, 3 * PAGE_SIZE)?;
    /// assert_eq!((file.object().size(), machine.mem().in_use()), (3 * PAGE_SIZE, 3));
    /// let hole = FallocateMode::PUNCH_HOLE | FallocateMode::KEEP_SIZE;
    /// file.fallocate(cx.reborrow(), hole, PAGE_SIZE, PAGE_SIZE)?;
    /// assert_eq!(machine.mem().in_use(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
