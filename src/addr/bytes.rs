//! Runs of bytes, cut at the boundaries of pages.

use super::{PAGE_SIZE, Vpn};

/// Returns page and offset of the bytes `[addr, addr + len)` if they lie in one page.
#[inline]
#[allow(clippy::cast_possible_truncation)]
pub(crate) fn within_page(addr: u64, len: usize) -> Option<(Vpn, usize)> {
    let offset = (addr % PAGE_SIZE) as usize;
    let fits = len.wrapping_sub(1) < PAGE_SIZE as usize - offset;
    fits.then(|| (Vpn::containing(addr), offset))
}

/// A buffer of bytes to load into, or to store.
pub(crate) trait Bytes: Sized {
    /// Returns the number of bytes.
    fn count(&self) -> usize;
    /// Cuts the buffer after `n` bytes.
    fn cut(self, n: usize) -> (Self, Self);
}

impl Bytes for &[u8] {
    #[inline]
    fn count(&self) -> usize {
        self.len()
    }
    fn cut(self, n: usize) -> (Self, Self) {
        self.split_at(n)
    }
}

impl Bytes for &mut [u8] {
    #[inline]
    fn count(&self) -> usize {
        self.len()
    }
    fn cut(self, n: usize) -> (Self, Self) {
        self.split_at_mut(n)
    }
}

/// Calls `f` for each page that the bytes from `addr` on lie in, with the page, the offset in it,
/// and the part of `bytes` that lies there. Stops at the first error.
///
/// Most accesses lie in one page and need no cut. A device tries those first by itself, as hits of
/// its TLB ([`within_page`]).
#[inline(always)]
pub(crate) fn by_page<B: Bytes, E>(
    addr: u64,
    bytes: B,
    mut f: impl FnMut(Vpn, usize, B) -> Result<(), E>,
) -> Result<(), E> {
    match within_page(addr, bytes.count()) {
        Some((page, offset)) => f(page, offset, bytes),
        None => across_pages(addr, bytes, &mut f),
    }
}
#[cold]
fn across_pages<B: Bytes, E>(
    addr: u64,
    bytes: B,
    f: &mut dyn FnMut(Vpn, usize, B) -> Result<(), E>,
) -> Result<(), E> {
    let mut rest = bytes;
    for (page, offset, n) in chunks(addr, rest.count()) {
        let (part, tail) = rest.cut(n);
        f(page, offset, part)?;
        rest = tail;
    }
    Ok(())
}

/// Cuts the bytes `[addr, addr + len)` at page boundaries, into triples of page, offset in the
/// page, and number of bytes.
///
/// Bytes that would lie beyond the top of the 64-bit space are counted to its last page, which is
/// never mapped.
#[allow(clippy::cast_possible_truncation)]
pub fn chunks(addr: u64, len: usize) -> impl Iterator<Item = (Vpn, usize, usize)> + Clone {
    let mut at = Some(addr);
    let mut left = len;
    std::iter::from_fn(move || {
        if left == 0 {
            return None;
        }
        let from = at.unwrap_or(u64::MAX);
        let offset = (from % PAGE_SIZE) as usize;
        let n = left.min(PAGE_SIZE as usize - offset);
        left -= n;
        at = from.checked_add(n as u64);
        Some((Vpn::containing(from), offset, n))
    })
}
