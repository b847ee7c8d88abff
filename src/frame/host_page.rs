//! The bytes of a frame that has an address in the host.

#[cfg(all(feature = "host-mapping", target_os = "linux"))]
use super::shared::SharedMemory;
use super::{atomic_bytes, pfn::PAGE_BYTES, word::WordAccess};
use crate::sync::hardware::AtomicU8;
use std::ptr::NonNull;
#[cfg(all(feature = "host-mapping", target_os = "linux"))]
use std::sync::Arc;

/// 4096 bytes at a multiple of 4096, which code outside of this crate may access at any time.
pub(super) enum HostPage {
    /// Memory of this page alone.
    Heap(Box<HeapPage>),
    /// A page of a file, which can be mapped at other addresses as well.
    #[cfg(all(feature = "host-mapping", target_os = "linux"))]
    Arena {
        memory: Arc<SharedMemory>,
        at: usize,
    },
}

/// A page of memory.
#[repr(C, align(4096))]
pub(super) struct HeapPage([AtomicU8; PAGE_BYTES]);

impl HostPage {
    /// Makes a page of zeros that is memory of its own.
    pub(super) fn new() -> Self {
        let zeros = [const { AtomicU8::new(0) }; PAGE_BYTES];
        Self::Heap(Box::new(HeapPage(zeros)))
    }
    /// Returns the address of the first byte.
    pub(super) fn address(&self) -> NonNull<u8> {
        match self {
            Self::Heap(page) => NonNull::from(&page.0).cast(),
            #[cfg(all(feature = "host-mapping", target_os = "linux"))]
            Self::Arena { memory, at } => memory.address(*at),
        }
    }
    pub(super) fn read(&self, offset: usize, out: &mut [u8]) {
        match self {
            Self::Heap(page) => atomic_bytes::load(&page.0[offset..][..out.len()], out),
            #[cfg(all(feature = "host-mapping", target_os = "linux"))]
            Self::Arena { memory, at } => {
                assert!(offset + out.len() <= PAGE_BYTES, "a read leaves its page");
                memory.read(at + offset, out);
            }
        }
    }
    pub(super) fn write(&self, offset: usize, bytes: &[u8]) {
        match self {
            Self::Heap(page) => atomic_bytes::store(&page.0[offset..][..bytes.len()], bytes),
            #[cfg(all(feature = "host-mapping", target_os = "linux"))]
            Self::Arena { memory, at } => {
                let end = offset + bytes.len();
                assert!(end <= PAGE_BYTES, "a write leaves its page");
                memory.write(at + offset, bytes);
            }
        }
    }
    /// Does an atomic access of a word, and returns what it was before. The caller has checked that
    /// it lies in the page.
    pub(super) fn access(&self, offset: usize, access: &WordAccess) -> u64 {
        match self {
            Self::Heap(page) => atomic_bytes::access(&page.0[offset..], access),
            #[cfg(all(feature = "host-mapping", target_os = "linux"))]
            Self::Arena { memory, at } => memory.access(at + offset, access),
        }
    }
}
