//! Numbers of guest frames, and the bit beside them in an address.

use crate::addr::{PAGE_SIZE, Vpn};

/// A guest frame number: 4 KiB of guest-physical memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gfn(pub u64);

impl Gfn {
    /// Returns the frame of a guest-physical byte address.
    pub const fn containing(gpa: u64) -> Self {
        Self(gpa >> crate::addr::PAGE_SHIFT)
    }
}

/// Guest frame numbers have 36 bits: four levels of 9.
pub(super) const GFN_BITS: u32 = 36;

/// The bit of a guest-physical address that makes an access private, on machines of type
/// [`VmType::Snp`](super::VmType::Snp) (the C-bit of AMD's SEV).
pub const C_BIT: u64 = 1 << 51;

const C_BIT_PAGE: u64 = C_BIT / PAGE_SIZE;

/// Returns the guest frame of a page that a processor names, and true if it has the C-bit.
#[inline]
pub(super) fn split(page: Vpn) -> (bool, Gfn) {
    (page.0 & C_BIT_PAGE != 0, Gfn(page.0 & !C_BIT_PAGE))
}
