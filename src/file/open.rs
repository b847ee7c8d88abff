//! Open files: an object, and the operations that a handle allows.

use super::{MemoryObject, io::pages_of};
use crate::{
    addr::by_page,
    ctx::CallCx,
    error::ObjectError,
    rmap::Mapping,
    sync::{AtomicU64, Ordering},
};
use std::{fmt, sync::Arc};

/// The access mode that a file was opened with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FileMode {
    /// Reading only: `O_RDONLY`.
    ReadOnly,
    /// Writing only: `O_WRONLY`.
    WriteOnly,
    /// Reading and writing: `O_RDWR`.
    #[default]
    ReadWrite,
}

/// An open file description. Mappings merge only if they share one, as on Linux.
pub struct File {
    object: Arc<dyn MemoryObject>,
    /// The object's mapping, asked for once: no later answer of the object changes a layout.
    mapping: Arc<Mapping>,
    mode: FileMode,
    /// Transfers bypass the cache of the object, if it has one (`O_DIRECT`).
    pub(super) is_direct: bool,
    /// The byte where the last read ended (`f_ra.prev_pos`); `u64::MAX`: no read yet.
    read_to: AtomicU64,
}

impl File {
    /// Opens an object.
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::file::{File, FileMode, Shmem};
    /// # let machine = emmu::Machine::new(Default::default());
    /// # let mut thread = machine.enter()?;
    /// # let mut cx = thread.cx();
    ///
    /// let object = Shmem::memfd(machine.host(), "notes", 0)?;
    /// let file = File::open(object.clone(), FileMode::ReadWrite);
    /// file.write_at(cx.reborrow(), 0, b"first")?;
    /// let mut bytes = [0; 8];
    /// assert_eq!(file.read_at(cx.reborrow(), 0, &mut bytes)?, 5);
    ///
    /// let read_only = File::open(object, FileMode::ReadOnly);
    /// assert!(read_only.write_at(cx.reborrow(), 0, b"second").is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open(object: Arc<dyn MemoryObject>, mode: FileMode) -> Arc<Self> {
        Self::opened(object, mode, false)
    }
    pub(super) fn opened(
        object: Arc<dyn MemoryObject>,
        mode: FileMode,
        is_direct: bool,
    ) -> Arc<Self> {
        let mapping = Arc::clone(object.mapping());
        Arc::new(Self {
            object,
            mapping,
            mode,
            is_direct,
            read_to: AtomicU64::new(u64::MAX),
        })
    }
    /// Returns the object.
    pub fn object(&self) -> &Arc<dyn MemoryObject> {
        &self.object
    }
    /// Returns the reverse map of the object.
    pub(crate) fn mapping(&self) -> &Arc<Mapping> {
        &self.mapping
    }
    /// Returns true if the file was opened for reading.
    pub fn is_readable(&self) -> bool {
        self.mode != FileMode::WriteOnly
    }
    /// Returns true if the file was opened for writing.
    pub fn is_writable(&self) -> bool {
        self.mode != FileMode::ReadOnly
    }
    /// Reads bytes from `offset` on, up to the end, and returns their number: `pread`.
    ///
    /// # Errors
    ///
    /// [`ObjectError::Access`] if the file was opened for writing only, and the errors of the
    /// object; [`ObjectError::Unaligned`] for a direct transfer.
    pub fn read_at(
        &self,
        mut cx: CallCx<'_>,
        offset: u64,
        out: &mut [u8],
    ) -> Result<usize, ObjectError> {
        if let Some(direct) = self.direct().filter(|_| self.is_readable()) {
            return self.read_direct(direct, cx, offset, out);
        }
        if out.is_empty() {
            return self.read_part(cx, offset, out, 0);
        }
        let len = out.len();
        let mut done = 0;
        let ended = by_page(offset, out, |_, _, part| {
            let (from, size) = (offset.saturating_add(done as u64), part.len());
            let read = self.read_part(cx.reborrow(), from, part, len - done);
            done += *read.as_ref().unwrap_or(&0);
            match read {
                Ok(read) if read == size => Ok(()),
                short => Err(short.map(|_| ())),
            }
        });
        if done > 0 {
            self.has_read_to(offset.saturating_add(done as u64));
        }
        match ended {
            Err(Err(why)) if done == 0 => Err(why),
            _ => Ok(done),
        }
    }
    /// Records the end of a read: of the bytes that the reader got, without read-ahead.
    pub(crate) fn has_read_to(&self, end: u64) {
        self.read_to.store(end, Ordering::Relaxed);
    }
    /// Reads the first bytes, within one page, of a read of `len` bytes.
    pub(crate) fn read_part(
        &self,
        mut cx: CallCx<'_>,
        offset: u64,
        out: &mut [u8],
        len: usize,
    ) -> Result<usize, ObjectError> {
        if !self.is_readable() {
            return Err(ObjectError::Access);
        }
        let end = offset.saturating_add(len as u64);
        let wanted = pages_of(offset..end);
        let before = self.read_to.load(Ordering::Relaxed);
        self.object.read_ahead(cx.reborrow(), wanted, before);
        let read = self.object.read_at(cx, offset, out)?;
        Ok(read.min(out.len()))
    }
    /// Writes bytes from `offset` on and returns their number: `pwrite`.
    ///
    /// # Errors
    ///
    /// [`ObjectError::Access`] if the file was opened for reading only, and the errors of the
    /// object.
    pub fn write_at(
        &self,
        cx: CallCx<'_>,
        offset: u64,
        bytes: &[u8],
    ) -> Result<usize, ObjectError> {
        let object = self.writable()?;
        match self.direct() {
            Some(direct) => Self::write_direct(direct, cx, offset, bytes),
            None => Ok(object.write_at(cx, offset, bytes)?.min(bytes.len())),
        }
    }
    /// Writes part of a page from bytes in memory, of which the first are available: see
    /// [`MemoryObject::write_begun`].
    pub(crate) fn write_begun(
        &self,
        cx: CallCx<'_>,
        offset: u64,
        bytes: &[u8],
        len: usize,
    ) -> Result<usize, ObjectError> {
        let object = self.writable()?;
        let taken = match bytes.len() == len {
            true => object.write_at(cx, offset, bytes),
            false => object.write_begun(cx, offset, bytes, len),
        };
        Ok(taken?.min(bytes.len()))
    }
    /// Sets the size: `ftruncate`.
    ///
    /// # Errors
    ///
    /// Those of [`write_at`](Self::write_at).
    pub fn truncate(&self, cx: CallCx<'_>, size: u64) -> Result<(), ObjectError> {
        self.writable()?.truncate(cx, size)
    }
    /// Writes all dirty pages to the store: `fsync`.
    ///
    /// # Errors
    ///
    /// Those of the object.
    pub fn sync(&self, cx: CallCx<'_>) -> Result<(), ObjectError> {
        self.object.sync(cx, 0, u64::MAX)
    }
    /// Returns the object if the file was opened for writing.
    pub(super) fn writable(&self) -> Result<&dyn MemoryObject, ObjectError> {
        if self.is_writable() {
            Ok(&*self.object)
        } else {
            Err(ObjectError::Access)
        }
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "File({}, {:?})", self.object.name(), self.mode)
    }
}

/// Returns true if both are one open file, or both are none.
pub(crate) fn same_file(a: Option<&Arc<File>>, b: Option<&Arc<File>>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        _ => false,
    }
}
