//! Reading and writing bytes of an object through its cache, page by page.

use super::cache::PageCache;
use crate::{
    addr::by_page,
    error::ObjectError,
    frame::{Frame, FrameFlags},
};

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
        by_page(offset, &mut out[..len], |at, within, part| {
            match page(at.0)? {
                Some(frame) => frame.read(within, part),
                None => part.fill(0),
            }
            Ok::<(), ObjectError>(())
        })?;
        Ok(len)
    }
    /// Copies bytes in; `page` brings each page.
    pub(super) fn write_bytes<'c>(
        &'c self,
        offset: u64,
        bytes: &[u8],
        mut page: impl FnMut(u64) -> Result<Frame<'c>, ObjectError>,
    ) -> Result<usize, ObjectError> {
        by_page(offset, bytes, |at, within, part| {
            let frame = page(at.0)?;
            frame.write(within, part);
            self.host().mem().set_flags(frame.pfn(), FrameFlags::DIRTY);
            Ok::<(), ObjectError>(())
        })?;
        Ok(bytes.len())
    }
}
