//! Reading and writing bytes of an object through its cache, page by page.

use super::{cache::PageCache, store::BLOCK};
use crate::{
    addr::{PAGE_SIZE, by_page},
    error::ObjectError,
    frame::{Frame, FrameFlags},
};
use std::ops::Range;

/// Some bytes of one page.
pub(super) struct Reach {
    from: usize,
    len: usize,
}

impl Reach {
    /// Those of an object, which lie in one page.
    pub(super) fn of(bytes: Range<u64>) -> Self {
        let within = |n: u64| usize::try_from(n).expect("within a page");
        Self {
            from: within(bytes.start % PAGE_SIZE),
            len: within(bytes.end.saturating_sub(bytes.start)),
        }
    }
    pub(super) fn zero(&self, frame: &Frame<'_>) {
        frame.write(self.from, &[0; BLOCK][..self.len]);
    }
}

/// Where in its page a byte lies.
pub(super) fn within_page(offset: u64) -> usize {
    usize::try_from(offset % PAGE_SIZE).expect("within a page")
}

/// What is done before an error counts: a read or a write that has begun comes out short.
fn short(done: usize, ended: Result<(), ObjectError>) -> Result<usize, ObjectError> {
    match ended {
        Err(why) if done == 0 => Err(why),
        _ => Ok(done),
    }
}

impl PageCache {
    /// Copies bytes out, up to `size`; holes read zero. `page` brings a page that is not in the cache, or not.
    pub(super) fn read_bytes<'c>(
        &'c self,
        size: u64,
        offset: u64,
        out: &mut [u8],
        mut page: impl FnMut(u64) -> Result<Option<Frame<'c>>, ObjectError>,
    ) -> Result<usize, ObjectError> {
        let left = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let len = left.min(out.len());
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
    /// Copies bytes in; `page` brings each page.
    pub(super) fn write_bytes<'c>(
        &'c self,
        offset: u64,
        bytes: &[u8],
        mut page: impl FnMut(u64) -> Result<Frame<'c>, ObjectError>,
    ) -> Result<usize, ObjectError> {
        let mut done = 0;
        let ended = by_page(offset, bytes, |at, within, part| {
            let frame = page(at.0)?;
            frame.write(within, part);
            self.host().mem().set_flags(frame.pfn(), FrameFlags::DIRTY);
            done += part.len();
            Ok::<(), ObjectError>(())
        });
        short(done, ended)
    }
}
