//! Reading and writing bytes of an object through its cache, page by page.

use super::cache::PageCache;
use crate::{
    addr::PAGE_SIZE,
    error::ObjectError,
    frame::{Frame, FrameFlags},
};

/// Cuts `[offset, offset + len)` at page boundaries: page, offset in it, bytes.
#[allow(clippy::cast_possible_truncation)]
fn chunks(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, usize)> {
    let end = offset.saturating_add(len as u64);
    let mut at = offset;
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let next = ((at / PAGE_SIZE + 1) * PAGE_SIZE).min(end);
        let part = (
            at / PAGE_SIZE,
            (at % PAGE_SIZE) as usize,
            (next - at) as usize,
        );
        at = next;
        Some(part)
    })
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
        for (index, within, n) in chunks(offset, len) {
            let part = &mut out[done..done + n];
            match page(index)? {
                Some(frame) => frame.read(within, part),
                None => part.fill(0),
            }
            done += n;
        }
        Ok(len)
    }
    /// Copies bytes in; `page` brings each page.
    pub(super) fn write_bytes<'c>(
        &'c self,
        offset: u64,
        bytes: &[u8],
        mut page: impl FnMut(u64) -> Result<Frame<'c>, ObjectError>,
    ) -> Result<usize, ObjectError> {
        let mut done = 0;
        for (index, within, n) in chunks(offset, bytes.len()) {
            let frame = page(index)?;
            frame.write(within, &bytes[done..done + n]);
            self.host().mem().set_flags(frame.pfn(), FrameFlags::DIRTY);
            done += n;
        }
        Ok(bytes.len())
    }
}
