//! The bytes of a frame that has an address in the host.

use super::{atomic_bytes, pfn::PAGE_BYTES, word::WordAccess};
use crate::sync::hardware::AtomicU8;
use std::ptr::NonNull;

/// 4096 bytes at a multiple of 4096, which code outside of this crate may access at any time.
#[repr(C, align(4096))]
pub(super) struct HostPage([AtomicU8; PAGE_BYTES]);

impl HostPage {
    /// Makes a page of zeros.
    pub(super) fn new() -> Box<Self> {
        Box::new(Self([const { AtomicU8::new(0) }; PAGE_BYTES]))
    }
    /// Returns the address of the first byte.
    pub(super) fn address(&self) -> NonNull<u8> {
        let first = NonNull::from(&self.0).cast::<AtomicU8>();
        first.cast()
    }
    pub(super) fn read(&self, offset: usize, out: &mut [u8]) {
        atomic_bytes::load(&self.0[offset..][..out.len()], out);
    }
    pub(super) fn write(&self, offset: usize, bytes: &[u8]) {
        atomic_bytes::store(&self.0[offset..][..bytes.len()], bytes);
    }
    pub(super) fn access(&self, offset: usize, access: &WordAccess) -> u64 {
        atomic_bytes::access(&self.0[offset..], access)
    }
}
