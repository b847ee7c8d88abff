//! The swap device, and the swap cache in front of it.
//!
//! Guarantee: a slot lives while page-table entries or objects count on it or a frame is cached for it; its contents
//! are those of the page when it was last written out. A frame is cached for one slot at most, and the cache holds a
//! reference on it.

use super::pfn::PAGE_BYTES;
use super::read_ahead::ReadAhead;
use crate::{
    addr::Pfn,
    sync::{AtomicU64, Mutex, Ordering},
};
use std::{
    collections::{BTreeSet, HashMap},
    fmt,
};

/// A slot of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SwapSlot(pub(crate) u32);

#[derive(Default)]
pub(super) struct SlotState {
    /// Entries and objects that refer to it.
    pub(super) count: u32,
    /// Frame in the swap cache.
    pub(super) cached: Option<Pfn>,
    /// That frame was read because a neighbour was wanted, and nobody has asked for it yet.
    pub(super) ahead: bool,
    /// Refers to it without a cache: an object.
    pub(super) of_object: bool,
    pub(super) page: Option<Box<[u8; PAGE_BYTES]>>,
}

#[derive(Default)]
pub(super) struct SwapSlots {
    pub(super) slots: Vec<SlotState>,
    pub(super) free: BTreeSet<u32>,
    /// Where the search for a free one begins: one page is written behind the other.
    pub(super) next: u32,
    pub(super) ahead: ReadAhead,
    /// Which slot a cached frame is of.
    pub(super) of_frame: HashMap<Pfn, SwapSlot>,
}

/// A device of fixed size; takes memory for what is in it.
#[derive(Default)]
pub struct Swap {
    pub(super) capacity: u32,
    pub(super) used: AtomicU64,
    pub(super) slots: Mutex<SwapSlots>,
}

impl SwapSlots {
    pub(super) fn slot(&mut self, slot: SwapSlot) -> &mut SlotState {
        &mut self.slots[slot.0 as usize]
    }
    /// Gives the slot back if nobody refers to it; says whether it did.
    pub(super) fn release(&mut self, id: SwapSlot) -> bool {
        let slot = self.slot(id);
        let unused = slot.count == 0 && slot.cached.is_none();
        if unused {
            *slot = SlotState::default();
            self.free.insert(id.0);
        }
        unused
    }
}

impl Swap {
    pub(super) fn new(capacity: u32) -> Self {
        Self {
            capacity,
            ..Self::default()
        }
    }
    /// Slots there are.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }
    /// Slots in use.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
    /// More than half of it is used: caches are given up early (`vm_swap_full`).
    pub(crate) fn is_scarce(&self) -> bool {
        self.used() * 2 > u64::from(self.capacity)
    }
    /// Frames in the swap cache.
    pub fn cached(&self) -> usize {
        self.slots.lock().of_frame.len()
    }
}

impl fmt::Debug for Swap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Swap")
            .field("capacity", &self.capacity)
            .field("used", &self.used())
            .finish_non_exhaustive()
    }
}
