//! The I/O page table of a device, its IOTLB, and the device's transfers through them.
//!
//! A translation names its page by a weak reference: the pin itself belongs to the map. So an entry
//! that is left in the IOTLB after the page was unpinned is found at its next use.

use super::{error::DmaFault, mistake::PinMistake, tracking::Tracking};
use crate::{
    addr::{Bytes, by_page},
    extmmu::{PageSize, Tlb},
    mm::HeldPages,
    sync::Mutex,
};
use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, Weak},
};

/// The configuration of a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DomainConfig {
    /// The first and the last byte address that the I/O page table can translate.
    pub aperture: (u64, u64),
    /// True if the I/O page table uses entries of 2 MiB where 512 frames lie in a row.
    pub huge: bool,
    /// True if the device's writes can be tracked.
    pub dirty: bool,
    /// The number of entries of the IOTLB.
    pub iotlb: usize,
    /// A mistake made on purpose, for a test that must find it.
    pub mistake: Option<PinMistake>,
}

impl Default for DomainConfig {
    fn default() -> Self {
        Self {
            aperture: (0, u64::MAX),
            huge: true,
            dirty: true,
            iotlb: 64,
            mistake: None,
        }
    }
}

/// The translations of one device or of several that share them (`struct iommu_domain`).
#[derive(Debug)]
pub struct Domain {
    pub(super) config: DomainConfig,
    /// The number under which its aperture is reserved.
    pub(super) owner: u64,
    pub(super) state: Mutex<State>,
}

#[derive(Debug)]
pub(super) struct State {
    /// The translations, by the number of the page of I/O addresses.
    table: BTreeMap<u64, IoEntry>,
    pub(super) iotlb: Tlb<CachedEntry>,
    pub(super) tracking: Option<Tracking>,
}

/// A translation in the I/O page table.
#[derive(Clone, Debug)]
struct IoEntry {
    page: Weak<HeldPages>,
    writable: bool,
    /// The pages of I/O addresses of the leaf that it is a part of: 1, or 512. They have one dirty
    /// bit.
    leaf: (u64, u64),
}

/// A translation in the IOTLB.
#[derive(Clone, Debug)]
pub(super) struct CachedEntry {
    entry: IoEntry,
    /// True if a write has set the dirty bit of the leaf: the next one need not.
    dirty: bool,
}

/// The pages of a leaf of 2 MiB.
const HUGE_PAGES: u64 = 512;

impl Domain {
    pub(super) fn new(config: DomainConfig, owner: u64) -> Self {
        let state = State {
            table: BTreeMap::new(),
            iotlb: Tlb::new(config.iotlb),
            tracking: None,
        };
        Self {
            config,
            owner,
            state: Mutex::new(state),
        }
    }
    /// Enters the translations of pages in a row from a page of I/O addresses on.
    pub(super) fn map(&self, first: u64, pages: &[Arc<HeldPages>], writable: bool) {
        let mut state = self.state.lock();
        let mut at = 0;
        while at < pages.len() {
            let iova = first + at as u64;
            let len = self.leaf_at(iova, &pages[at..]);
            for (nth, page) in pages[at..at + len].iter().enumerate() {
                let entry = IoEntry {
                    page: Arc::downgrade(page),
                    writable,
                    leaf: (iova, len as u64),
                };
                state.table.insert(iova + nth as u64, entry);
            }
            at += len;
        }
    }
    /// Returns the number of pages of the largest leaf at the beginning of `pages`.
    fn leaf_at(&self, iova: u64, pages: &[Arc<HeldPages>]) -> usize {
        let frame = |page: &Arc<HeldPages>| page.pfns()[0].0;
        let len = usize::try_from(HUGE_PAGES).expect("small");
        let Some(part) = pages.get(..len) else {
            return 1;
        };
        let aligned = |n: u64| n.is_multiple_of(HUGE_PAGES);
        let in_a_row = |pair: &[Arc<HeldPages>]| frame(&pair[1]) == frame(&pair[0]) + 1;
        let whole = aligned(iova) && aligned(frame(&part[0]).into());
        if self.config.huge && whole && part.windows(2).all(in_a_row) {
            len
        } else {
            1
        }
    }
    /// Removes the translations of some pages of I/O addresses, and then the cached ones. After
    /// this no transfer finds them, so that their pages may be unpinned.
    pub(super) fn unmap(&self, pages: Range<u64>) {
        let mut state = self.state.lock();
        let mut kept = state.table.split_off(&pages.start);
        let mut behind = kept.split_off(&pages.end);
        state.table.append(&mut behind);
        if let Some(tracking) = &mut state.tracking {
            tracking.clear(pages.clone());
        }
        if self.config.mistake != Some(PinMistake::NoFlush) {
            state.iotlb.remove_in(0, pages.start, pages.end);
        }
    }
    /// Reads bytes of memory, as the device does. Bytes before the one that faults have been read.
    ///
    /// # Errors
    ///
    /// [`DmaFault`].
    pub fn read(&self, iova: u64, out: &mut [u8]) -> Result<(), DmaFault> {
        self.transfer(iova, out, false, |page, offset, part| {
            page.read_at(offset, part);
        })
    }
    /// Writes bytes of memory, as the device does. Bytes before the one that faults have been
    /// written.
    ///
    /// # Errors
    ///
    /// [`DmaFault`].
    pub fn write(&self, iova: u64, bytes: &[u8]) -> Result<(), DmaFault> {
        self.transfer(iova, bytes, true, |page, offset, part| {
            page.write_at(offset, part);
        })
    }
    fn transfer<B: Bytes>(
        &self,
        iova: u64,
        bytes: B,
        write: bool,
        mut f: impl FnMut(&HeldPages, usize, B),
    ) -> Result<(), DmaFault> {
        by_page(iova, bytes, |page, offset, part| {
            let at = page.addr() + offset as u64;
            // The device holds no lock while it transfers. Here the lock keeps the page pinned for
            // so long: real IOMMUs end an invalidation after the transfers that used the entry.
            let mut state = self.state.lock();
            let entry = state.translate(page.0, at, write)?;
            let page = entry.upgrade().ok_or(DmaFault::Unpinned(at))?;
            f(&page, offset, part);
            Ok(())
        })
    }
    /// Returns the number of translations in the I/O page table.
    pub fn entries(&self) -> usize {
        self.state.lock().table.len()
    }
}

impl State {
    /// Finds the translation of a page, in the IOTLB or else in the table.
    fn translate(&mut self, page: u64, at: u64, write: bool) -> Result<Weak<HeldPages>, DmaFault> {
        let cached = self.iotlb.get(0, page);
        let mut changed = cached.is_none();
        let mut cached = match cached {
            Some(cached) => cached.clone(),
            None => {
                let entry = self.table.get(&page).ok_or(DmaFault::NotMapped(at))?;
                CachedEntry {
                    entry: entry.clone(),
                    dirty: false,
                }
            }
        };
        if write && !cached.entry.writable {
            return Err(DmaFault::ReadOnly(at));
        }
        let found = cached.entry.page.clone();
        if let Some(tracking) = self.tracking.as_mut().filter(|_| write && !cached.dirty) {
            tracking.set(cached.entry.leaf);
            cached.dirty = true;
            changed = true;
        }
        if changed {
            let _evicted = self.iotlb.insert(0, page, PageSize::Small, cached);
        }
        Ok(found)
    }
}
