//! Runs of bytes, cut at the boundaries of pages.

use super::{PAGE_SIZE, Vpn};

/// Page and offset of the bytes `[addr, addr + len)` if they lie in one.
#[inline]
#[allow(clippy::cast_possible_truncation)]
fn within_page(addr: u64, len: usize) -> Option<(Vpn, usize)> {
    let offset = (addr % PAGE_SIZE) as usize;
    let fits = len.wrapping_sub(1) < PAGE_SIZE as usize - offset;
    fits.then(|| (Vpn::containing(addr), offset))
}

/// Bytes to load into, or to store.
pub(crate) trait Bytes: Sized {
    /// How many.
    fn count(&self) -> usize;
    /// The first `n`, and the rest.
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

/// Runs `f` on the parts of `bytes`, which stand for those from `addr` on, page by page: page, offset in it, part. Ends with the
/// first error.
///
/// Most accesses lie in one page, and have nothing to cut: `f` becomes part of the caller for them.
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

/// Cuts the bytes `[addr, addr + len)` at page boundaries: page, offset in it, bytes. Nothing lies beyond the top of the
/// 64-bit space: what would wrap is counted to the last page, which is never mapped.
#[allow(clippy::cast_possible_truncation)]
pub fn chunks(addr: u64, len: usize) -> impl Iterator<Item = (Vpn, usize, usize)> {
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
