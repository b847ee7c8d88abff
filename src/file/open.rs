//! An open file: an object, and what may be done to it through this handle.

use super::MemoryObject;
use crate::ctx::CallCx;
use crate::{
    addr::PAGE_SIZE,
    error::ObjectError,
    rmap::Mapping,
    sync::{AtomicU64, Ordering},
};
use std::{fmt, sync::Arc};

/// How a file was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FileMode {
    /// `O_RDONLY`.
    ReadOnly,
    /// `O_WRONLY`.
    WriteOnly,
    /// `O_RDWR`.
    #[default]
    ReadWrite,
}

/// An open file description. Mappings merge only if they are of the same one, as on Linux.
pub struct File {
    object: Arc<dyn MemoryObject>,
    /// The object's, asked for once: no change of a layout depends on what it says.
    mapping: Arc<Mapping>,
    mode: FileMode,
    /// Where the last read ended (`f_ra.prev_pos`).
    read_to: AtomicU64,
}

impl File {
    /// Opens an object.
    pub fn open(object: Arc<dyn MemoryObject>, mode: FileMode) -> Arc<Self> {
        let mapping = Arc::clone(object.mapping());
        Arc::new(Self {
            object,
            mapping,
            mode,
            read_to: AtomicU64::new(u64::MAX),
        })
    }
    /// The object.
    pub fn object(&self) -> &Arc<dyn MemoryObject> {
        &self.object
    }
    /// Who maps it.
    pub(crate) fn mapping(&self) -> &Arc<Mapping> {
        &self.mapping
    }
    /// Whether it may be read.
    pub fn is_readable(&self) -> bool {
        self.mode != FileMode::WriteOnly
    }
    /// Whether it may be written.
    pub fn is_writable(&self) -> bool {
        self.mode != FileMode::ReadOnly
    }
    /// `pread`: bytes from `offset` on, up to the end; returns how many.
    ///
    /// # Errors
    ///
    /// [`ObjectError::Access`] on a file opened for writing only, and the object's own.
    pub fn read_at(
        &self,
        cx: CallCx<'_>,
        offset: u64,
        out: &mut [u8],
    ) -> Result<usize, ObjectError> {
        let len = out.len();
        let read = self.read_part(cx, offset, out, len)?;
        if read > 0 {
            self.has_read_to(offset.saturating_add(read as u64));
        }
        Ok(read)
    }
    /// A reader got so far: what it got, not what was read in for it.
    pub(crate) fn has_read_to(&self, end: u64) {
        self.read_to.store(end, Ordering::Relaxed);
    }
    /// The first bytes of a read of `len`.
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
        let wanted = offset / PAGE_SIZE..end.div_ceil(PAGE_SIZE);
        let before = self.read_to.load(Ordering::Relaxed);
        self.object.read_ahead(cx.reborrow(), wanted, before);
        self.object.read_at(cx, offset, out)
    }
    /// `pwrite`.
    ///
    /// # Errors
    ///
    /// [`ObjectError::Access`] on a file opened for reading only, and the object's own.
    pub fn write_at(
        &self,
        cx: CallCx<'_>,
        offset: u64,
        bytes: &[u8],
    ) -> Result<usize, ObjectError> {
        self.writable()?.write_at(cx, offset, bytes)
    }
    /// A write whose bytes come from memory, a part of a page: see [`MemoryObject::write_begun`].
    pub(crate) fn write_begun(
        &self,
        cx: CallCx<'_>,
        offset: u64,
        bytes: &[u8],
        len: usize,
    ) -> Result<usize, ObjectError> {
        let object = self.writable()?;
        match bytes.len() == len {
            true => object.write_at(cx, offset, bytes),
            false => object.write_begun(cx, offset, bytes, len),
        }
    }
    /// `ftruncate`.
    ///
    /// # Errors
    ///
    /// As [`write_at`](Self::write_at).
    pub fn truncate(&self, cx: CallCx<'_>, size: u64) -> Result<(), ObjectError> {
        self.writable()?.truncate(cx, size)
    }
    /// `fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)`.
    ///
    /// # Errors
    ///
    /// As [`write_at`](Self::write_at); an empty range is [`ObjectError::Range`].
    pub fn punch_hole(&self, cx: CallCx<'_>, from: u64, len: u64) -> Result<(), ObjectError> {
        let object = self.writable()?;
        if len == 0
            || from
                .checked_add(len)
                .is_none_or(|end| end > i64::MAX as u64)
        {
            return Err(ObjectError::Range { from, len });
        }
        object.punch_hole(cx, from, len)
    }
    /// `fsync`.
    ///
    /// # Errors
    ///
    /// The object's own.
    pub fn sync(&self, cx: CallCx<'_>) -> Result<(), ObjectError> {
        self.object.sync(cx, 0, u64::MAX)
    }
    fn writable(&self) -> Result<&dyn MemoryObject, ObjectError> {
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

/// Whether both are the same open file, or both none.
pub(crate) fn same_file(a: Option<&Arc<File>>, b: Option<&Arc<File>>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        _ => false,
    }
}
