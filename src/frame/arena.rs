//! The file of the host in which the bytes of frames lie that have an address.
//!
//! Guarantee: frame `n` has page `n` of the file, and no other, as long as the machine lives; so a
//! mapping of that page at another address shows the frame's bytes. Aligned words are whole for
//! both sides. The file is made when the first frame needs an address, and takes memory of the host
//! only for such frames.

use super::{host_page::HostPage, pfn::PAGE_BYTES, shared::SharedMemory};
use crate::{addr::Pfn, sync::OnceLock};
use std::sync::Arc;

/// The file, once it is made.
#[derive(Default)]
pub(super) struct Arena(OnceLock<Option<Arc<SharedMemory>>>);

impl Arena {
    /// Returns the memory, for frames with numbers below `numbers`; `None` if the host refuses it.
    pub(super) fn memory(&self, numbers: u32) -> Option<&Arc<SharedMemory>> {
        let make = || SharedMemory::new(numbers, true).ok().map(Arc::new);
        self.0.get_or_init(make).as_ref()
    }
}

/// Returns the offset of a frame's page in the memory.
pub(super) fn offset_of(pfn: Pfn) -> usize {
    pfn.0 as usize * PAGE_BYTES
}

/// Returns the page of a frame in the memory.
pub(super) fn page_of(memory: &Arc<SharedMemory>, pfn: Pfn) -> HostPage {
    HostPage::Arena {
        memory: Arc::clone(memory),
        at: offset_of(pfn),
    }
}
