//! One GRU chiplet: a TLB, up to 16 loaded contexts, and their misses.

use super::{
    asid::{Asids, Before, CONTEXTS, MAX},
    tgh::Handles,
    tracker::Trackers,
};
use crate::{
    addr::VpnRange,
    extmmu::tlb::Tlb,
    notifier::Cached,
    sync::{SpinGuard, SpinLock},
};
use smallvec::SmallVec;
use std::sync::{Arc, Weak};

/// The configuration of a GRU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct GruConfig {
    /// Entries of the TLB.
    pub tlb_entries: usize,
    /// The highest address space identifier; at least 136 is taken, so that all contexts that can
    /// be loaded have one.
    pub max_asid: u32,
    /// The number of pages behind a miss that are entered ahead, at most as many as the TLB has
    /// entries. 0: none.
    pub preload: u64,
}

impl Default for GruConfig {
    fn default() -> Self {
        Self {
            tlb_entries: 256,
            max_asid: MAX,
            preload: 0,
        }
    }
}

/// Counts of the events of one GRU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GruStats {
    /// Purge instructions.
    pub purges: u64,
    /// Purges of all pages of their address space, since the range had more than 1023 pages.
    pub whole_purges: u64,
    /// Purges saved because the context was not loaded.
    pub lazy_purges: u64,
    /// Entries that the driver put into the TLB in the interrupt of a miss.
    pub interrupt_dropins: u64,
    /// Entries that the driver put into the TLB in a call of the user.
    pub user_dropins: u64,
    /// Such entries that the hardware ignored, since a purge had cancelled the miss.
    pub ignored_dropins: u64,
    /// Entries made ahead of a miss.
    pub preloads: u64,
    /// Flushes of the whole TLB.
    pub flushes: u64,
    /// Cycles of purges, as the driver's comments estimate them: a fixed cost and one for each
    /// page.
    pub purge_cycles: u64,
    /// Purges through a handle of the processor's own; all others used a shared one.
    pub local_purges: u64,
    /// Purges that waited for their handle.
    pub handle_waits: u64,
    /// Cycles of the purges that were waited for: an upper bound of the waiting time.
    pub handle_wait_cycles: u64,
}

/// A context in a slot of the chip.
pub(super) struct Loaded {
    pub(super) context: u64,
    /// The trackers of its address space.
    pub(super) trackers: Weak<Trackers>,
    /// The number of this GRU among those of the address space.
    pub(super) nth: usize,
    pub(super) asid: u32,
    /// The misses in service, one for each waiting instruction; a purge removes them (the fault
    /// maps).
    pub(super) armed: SmallVec<[Miss; 2]>,
}

/// A miss, and the pages in which a purge cancels it.
pub(super) struct Miss {
    pub(super) serial: u64,
    pub(super) pages: VpnRange,
}

impl Loaded {
    /// Cancels the miss, and returns true if it was armed.
    pub(super) fn disarm(&mut self, serial: u64) -> bool {
        let at = self.armed.iter().position(|miss| miss.serial == serial);
        at.map(|at| self.armed.swap_remove(at)).is_some()
    }
}

pub(super) struct Chip {
    pub(super) tlb: Tlb<Cached>,
    pub(super) slots: [Option<Loaded>; CONTEXTS],
    pub(super) asids: Asids,
    pub(super) stats: GruStats,
    victim: usize,
    /// The number of misses so far.
    pub(super) misses: u64,
}

/// One GRU chiplet.
pub struct Gru {
    pub(super) config: GruConfig,
    /// Acquired before `chip`.
    pub(super) handles: Handles,
    pub(super) chip: SpinLock<Chip>,
}

impl Gru {
    /// Creates the GRUs of one machine, all with one configuration, two on each blade.
    pub fn several(count: usize, config: GruConfig) -> Vec<Arc<Self>> {
        let make = |nth| {
            Arc::new(Self {
                config,
                handles: Handles::on_blade(nth / 2),
                chip: SpinLock::new(Chip {
                    tlb: Tlb::new(config.tlb_entries),
                    slots: [const { None }; CONTEXTS],
                    asids: Asids::new(config.max_asid),
                    stats: GruStats::default(),
                    victim: 0,
                    misses: 0,
                }),
            })
        };
        (0..count).map(make).collect()
    }
    /// Returns the counts so far.
    pub fn stats(&self) -> GruStats {
        GruStats {
            handle_waits: self.handles.waits(),
            ..self.chip.lock().stats
        }
    }
    /// Returns the number of TLB entries, those under identifiers that are no longer in use
    /// included.
    pub fn tlb_len(&self) -> usize {
        self.chip.lock().tlb.len()
    }
    #[inline(always)]
    pub(super) fn lock(&self) -> SpinGuard<'_, Chip> {
        self.chip.lock()
    }
}

impl Chip {
    #[inline(always)]
    pub(super) fn slot_of(&mut self, context: u64) -> Option<&mut Loaded> {
        let mut loaded = self.slots.iter_mut().flatten();
        loaded.find(|l| l.context == context)
    }
    /// Returns a new identifier that no loaded context has.
    pub(super) fn new_asid(&mut self) -> u32 {
        let in_use: Vec<u32> = self.slots.iter().flatten().map(|l| l.asid).collect();
        let (asid, before) = self.asids.next(&in_use);
        if before == Before::FlushAll {
            self.tlb.clear();
            self.stats.flushes += 1;
        }
        asid
    }
    /// Returns a free slot, or frees one by unloading its context.
    pub(super) fn free_slot(&mut self) -> (usize, Option<Loaded>) {
        if let Some(free) = self.slots.iter().position(Option::is_none) {
            return (free, None);
        }
        self.victim = (self.victim + 1) % CONTEXTS;
        (self.victim, self.slots[self.victim].take())
    }
}

impl std::fmt::Debug for Gru {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gru")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
