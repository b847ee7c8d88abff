//! The swap device: its slots, and the frames that are cached for them.
//!
//! Guarantee: a slot lives while entries or objects refer to it, or a frame is cached for it; its
//! contents are those of the page when it was last written out. A frame is cached for one slot at
//! most, and the cache holds a reference on the frame.

use super::{pfn::PAGE_BYTES, read_ahead::ReadAhead};
use crate::{
    addr::Pfn,
    sync::{AtomicU8, AtomicU64, Mutex, Ordering},
};
use std::{
    collections::{BTreeSet, HashMap},
    fmt,
};

/// A slot of the swap device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SwapSlot(pub(crate) u32);

/// The state of one slot.
#[derive(Default)]
pub(super) struct SlotState {
    /// The number of entries and objects that refer to the slot.
    pub(super) count: u32,
    /// The frame that is cached for the slot.
    pub(super) cached: Option<Pfn>,
    /// The cached frame was read ahead, and no access has wanted it yet.
    pub(super) ahead: bool,
    /// An object refers to the slot; such a slot has no cached frame.
    pub(super) of_object: bool,
    /// The bytes on the device; `None`: all zero.
    pub(super) page: Option<Box<[u8; PAGE_BYTES]>>,
}

/// All slots of a device, under its lock.
#[derive(Default)]
pub(super) struct SwapSlots {
    pub(super) slots: Vec<SlotState>,
    pub(super) free: BTreeSet<u32>,
    /// The search for a free slot begins here: pages are written one behind the other.
    pub(super) next: u32,
    pub(super) ahead: ReadAhead,
    /// The slot of each cached frame.
    pub(super) of_frame: HashMap<Pfn, SwapSlot>,
}

/// A swap device of fixed size, which takes memory for the pages that are on it.
#[derive(Default)]
pub struct Swap {
    pub(super) capacity: u32,
    use_of: AtomicU8,
    pub(super) used: AtomicU64,
    pub(super) slots: Mutex<SwapSlots>,
}

/// Pages are written to the device.
const ON: u8 = 0;
/// The device is being taken out of use: its pages can be read, and none is written.
const LEAVING: u8 = 1;
/// The device is out of use.
const OFF: u8 = 2;

/// A device that is being taken out of use; in use again when this is dropped.
pub(crate) struct Leaving<'s>(&'s Swap);

impl Leaving<'_> {
    /// The device has no page left: it is out of use.
    pub(crate) fn finish(self) {
        self.0.use_of.store(OFF, Ordering::Relaxed);
    }
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        let _finished = self.0.change_use(LEAVING, ON);
    }
}

impl SwapSlots {
    /// Returns the state of a slot.
    pub(super) fn slot(&mut self, slot: SwapSlot) -> &mut SlotState {
        &mut self.slots[slot.0 as usize]
    }
    /// Frees the slot if no entry refers to it and no frame is cached for it. Returns true if it
    /// did.
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
    /// Returns an empty device.
    pub(super) fn new(capacity: u32) -> Self {
        Self {
            capacity,
            ..Self::default()
        }
    }
    /// Returns the number of slots.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }
    /// Returns the number of slots in use.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
    /// Returns true if pages can be written to the device.
    pub fn is_on(&self) -> bool {
        self.capacity > 0 && self.use_of.load(Ordering::Relaxed) == ON
    }
    /// Begins to take the device out of use; `None` if it is not in use.
    pub(crate) fn leave(&self) -> Option<Leaving<'_>> {
        let begun = self.capacity > 0 && self.change_use(ON, LEAVING);
        begun.then(|| Leaving(self))
    }
    /// Puts a device that is out of use in use. Returns false if it is in use, or being taken out
    /// of use, or if there is none.
    pub(crate) fn enter(&self) -> bool {
        self.capacity > 0 && self.change_use(OFF, ON)
    }
    fn change_use(&self, from: u8, to: u8) -> bool {
        let order = Ordering::Relaxed;
        self.use_of.compare_exchange(from, to, order, order).is_ok()
    }
    /// Returns true if more than half of the device is in use: cached frames give their slots up
    /// early then (`vm_swap_full`).
    pub(crate) fn is_scarce(&self) -> bool {
        !self.is_on() || self.used() * 2 > u64::from(self.capacity)
    }
    /// Returns true if no slot is free.
    pub(crate) fn is_full(&self) -> bool {
        !self.is_on() || self.used() >= u64::from(self.capacity)
    }
    /// Returns the number of frames in the swap cache.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_taken_out_of_use_cannot_be_put_in_use_meanwhile() {
        let swap = Swap::new(8);
        let leaving = swap.leave().unwrap();
        assert!(!swap.is_on() && !swap.enter() && swap.leave().is_none());
        drop(leaving);
        assert!(swap.is_on() && !swap.enter());
        swap.leave().unwrap().finish();
        assert!(!swap.is_on() && swap.leave().is_none() && swap.enter());
    }
}
