//! Reading and writing bytes of an object through its cache, page by page.

use super::{cache::PageCache, store::BLOCK};
use crate::{
    addr::{PAGE_SIZE, by_page},
    ctx::{CallCx, Cx, Rank, Sleepable},
    error::ObjectError,
    frame::{Frame, FrameFlags},
};
use std::ops::Range;

/// A range of bytes inside of one page.
pub(super) struct ByteSpan {
    from: usize,
    len: usize,
}

impl ByteSpan {
    /// Returns the part of a page that a range of an object's bytes is; the range lies in one page.
    pub(super) fn of(bytes: Range<u64>) -> Self {
        let within = |n: u64| usize::try_from(n).expect("within a page");
        Self {
            from: within(bytes.start % PAGE_SIZE),
            len: within(bytes.end.saturating_sub(bytes.start)),
        }
    }
    /// Zeros these bytes of a frame.
    pub(super) fn zero(&self, frame: &Frame<'_>) {
        frame.write(self.from, &[0; BLOCK][..self.len]);
    }
}

/// Returns the bytes from `at` to the end of its page.
pub(super) fn rest_of_page(at: u64) -> Range<u64> {
    at..at.next_multiple_of(PAGE_SIZE)
}

/// Returns the pages that a range of bytes touches.
pub(super) fn pages_of(bytes: Range<u64>) -> Range<u64> {
    bytes.start / PAGE_SIZE..bytes.end.div_ceil(PAGE_SIZE)
}

/// Returns the offset of a byte in its page.
pub(super) fn within_page(offset: u64) -> usize {
    usize::try_from(offset % PAGE_SIZE).expect("within a page")
}

/// Returns how many of `len` bytes from `offset` on lie in an object of `size` bytes.
pub(super) fn inside(size: u64, offset: u64, len: usize) -> usize {
    let left = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
    left.min(len)
}

/// Returns the number of bytes done if there are any: an error after them makes the call short, not
/// failed.
fn short(done: usize, ended: Result<(), ObjectError>) -> Result<usize, ObjectError> {
    match ended {
        Err(why) if done == 0 => Err(why),
        _ => Ok(done),
    }
}

/// Writes bytes page by page: `write` gets the page's number, the offset in it, and the bytes.
/// Returns the number of bytes written.
pub(super) fn write_by_page(
    offset: u64,
    bytes: &[u8],
    mut write: impl FnMut(u64, usize, &[u8]) -> Result<(), ObjectError>,
) -> Result<usize, ObjectError> {
    let mut done = 0;
    let ended = by_page(offset, bytes, |at, within, part| {
        write(at.0, within, part)?;
        done += part.len();
        Ok::<(), ObjectError>(())
    });
    short(done, ended)
}

/// Copies bytes of an object of `size` bytes out, up to its end. `page` returns the frame of a
/// page; a hole (`None`) reads zero. Returns the number of bytes read.
pub(super) fn read_by_page<'c>(
    size: u64,
    offset: u64,
    out: &mut [u8],
    mut page: impl FnMut(u64) -> Result<Option<Frame<'c>>, ObjectError>,
) -> Result<usize, ObjectError> {
    let len = inside(size, offset, out.len());
    let mut done = 0;
    let ended = by_page(offset, &mut out[..len], |at, within, part| {
        match page(at.0)? {
            Some(frame) => frame.read(within, part),
            None => part.fill(0),
        }
        done += part.len();
        Ok::<(), ObjectError>(())
    });
    short(done, ended)
}

impl PageCache {
    /// Copies bytes in and marks their pages dirty. `page` returns the frame of a page.
    pub(super) fn write_bytes<'c>(
        &'c self,
        cx: &mut CallCx<'_>,
        offset: u64,
        bytes: &[u8],
        mut page: impl FnMut(&mut CallCx<'_>, u64) -> Result<Frame<'c>, ObjectError>,
    ) -> Result<usize, ObjectError> {
        write_by_page(offset, bytes, |index, within, part| {
            let frame = page(cx, index)?;
            self.write_page(cx, frame, within, part);
            Ok(())
        })
    }
    /// Copies bytes into a page and marks it dirty.
    ///
    /// The page is locked: a move of the page could copy it before the write, and take its place
    /// after. The reference keeps a page in the cache that is about to be moved or given up.
    pub(super) fn write_page<R: Rank>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        frame: Frame<'_>,
        within: usize,
        bytes: &[u8],
    ) {
        let mem = self.host().mem();
        let locked = mem.lock(cx, frame);
        locked.frame().write(within, bytes);
        mem.set_flags(locked.pfn(), FrameFlags::DIRTY);
    }
}
