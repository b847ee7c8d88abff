//! Addresses of bytes that a process can map.

use super::{PAGE_SIZE, TASK_SIZE, Vpn};
use std::fmt;

/// An address of a byte that a process can map.
///
/// Guarantee: the address lies below [`TASK_SIZE`]. Calls that take any 64-bit number, because they
/// must refuse a wrong one as Linux does, have `u64` parameters; `u64::from` gives them the number
/// (docs/adr/0027-calls-take-addresses-as-numbers.md).
///
/// ```
/// use emmu::addr::{VirtAddr, Vpn, VirtAddrNotValid};
///
/// let at = VirtAddr::new(0x7fff_1234);
/// assert_eq!((at.page(), at.page_offset()), (Vpn(0x7_fff1), 0x234));
/// assert_eq!(VirtAddr::try_new(u64::MAX), Err(VirtAddrNotValid(u64::MAX)));
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VirtAddr(u64);

/// An address at or above [`TASK_SIZE`], where one of a process is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:#x} is not an address below TASK_SIZE")]
pub struct VirtAddrNotValid(
    /// The address.
    pub u64,
);

impl VirtAddr {
    /// Makes an address of a number.
    ///
    /// # Panics
    ///
    /// If the number is at least [`TASK_SIZE`].
    #[inline]
    #[track_caller]
    pub const fn new(addr: u64) -> Self {
        assert!(addr < TASK_SIZE, "the address is not below TASK_SIZE");
        Self(addr)
    }
    /// Makes an address of a number.
    ///
    /// # Errors
    ///
    /// [`VirtAddrNotValid`] if the number is at least [`TASK_SIZE`].
    #[inline]
    pub const fn try_new(addr: u64) -> Result<Self, VirtAddrNotValid> {
        if addr < TASK_SIZE {
            Ok(Self(addr))
        } else {
            Err(VirtAddrNotValid(addr))
        }
    }
    /// Returns the number of the byte.
    #[inline]
    pub const fn as_u64(self) -> u64 {
        self.0
    }
    /// Returns the page that holds the byte.
    #[inline]
    pub const fn page(self) -> Vpn {
        Vpn::containing(self.0)
    }
    /// Returns the offset of the byte in its page, below [`PAGE_SIZE`].
    #[inline]
    pub const fn page_offset(self) -> u64 {
        self.0 % PAGE_SIZE
    }
    /// Returns the address `bytes` above, or `None` if that is not below [`TASK_SIZE`].
    #[inline]
    pub const fn checked_add(self, bytes: u64) -> Option<Self> {
        match self.0.checked_add(bytes) {
            Some(addr) if addr < TASK_SIZE => Some(Self(addr)),
            _ => None,
        }
    }
}

impl From<VirtAddr> for u64 {
    #[inline]
    fn from(addr: VirtAddr) -> Self {
        addr.0
    }
}

impl TryFrom<u64> for VirtAddr {
    type Error = VirtAddrNotValid;
    #[inline]
    fn try_from(addr: u64) -> Result<Self, VirtAddrNotValid> {
        Self::try_new(addr)
    }
}

impl From<VirtAddr> for Vpn {
    #[inline]
    fn from(addr: VirtAddr) -> Self {
        addr.page()
    }
}

impl fmt::Display for VirtAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Debug for VirtAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "addr:{:#x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::{TASK_SIZE, VirtAddr, VirtAddrNotValid};

    #[test]
    fn an_address_lies_below_the_end_of_the_address_space() {
        let last = VirtAddr::new(TASK_SIZE - 1);
        assert_eq!(VirtAddr::try_from(TASK_SIZE - 1), Ok(last));
        assert_eq!(
            VirtAddr::try_new(TASK_SIZE),
            Err(VirtAddrNotValid(TASK_SIZE))
        );
        assert_eq!(last.checked_add(1), None);
        assert_eq!(last.checked_add(u64::MAX), None);
        assert_eq!(VirtAddr::default().checked_add(TASK_SIZE - 1), Some(last));
        assert_eq!(
            (u64::from(last), last.page_offset()),
            (TASK_SIZE - 1, 0xfff)
        );
    }

    #[test]
    #[should_panic(expected = "not below TASK_SIZE")]
    fn an_address_above_it_panics() {
        let _ = VirtAddr::new(TASK_SIZE);
    }
}
