//! One GRU chiplet: a TLB, up to 16 loaded contexts, and their misses.

use super::{
    asid::{Asids, Before, MAX},
    tgh::Handles,
    tracker::Trackers,
};
use crate::{
    addr::VpnRange,
    extmmu::tlb::Tlb,
    notifier::Cached,
    sync::{Mutex, MutexGuard},
};
use smallvec::SmallVec;
use std::sync::{Arc, Weak};

/// Contexts that are loaded at a time.
pub(super) const CONTEXTS: usize = 16;

/// The size of a GRU.
#[derive(Clone, Copy, Debug)]
pub struct GruConfig {
    /// Entries of the TLB.
    pub tlb_entries: usize,
    /// Highest address space identifier.
    pub max_asid: u32,
    /// Pages entered ahead of a miss, behind it in the address space; 0: none. At most as many as the TLB has entries for.
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

/// What a GRU has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GruStats {
    /// Purge instructions.
    pub purges: u64,
    /// … that purged all pages of their address space, having more than 1023 to purge.
    pub whole_purges: u64,
    /// Purges saved because the context was not loaded.
    pub lazy_purges: u64,
    /// Drop-ins by the interrupt path.
    pub interrupt_dropins: u64,
    /// Drop-ins by the user path.
    pub user_dropins: u64,
    /// Drop-ins that the hardware ignored, since a purge came first.
    pub ignored_dropins: u64,
    /// Entries made ahead of a miss.
    pub preloads: u64,
    /// Times that the whole TLB was flushed.
    pub flushes: u64,
    /// Cycles of purging, as the driver's comments estimate them: a fixed cost and one for each page.
    pub purge_cycles: u64,
    /// Purges through a handle of the GRU's own blade; all others went through one of the shared ones.
    pub local_purges: u64,
    /// Times that the handle for a purge was busy with another one.
    pub handle_waits: u64,
    /// Cycles of those others, at the most what was waited.
    pub handle_wait_cycles: u64,
}

/// A context in a slot of the chip.
pub(super) struct Loaded {
    pub(super) context: u64,
    /// Those of its address space.
    pub(super) trackers: Weak<Trackers>,
    /// Which of that address space's GRUs this one is.
    pub(super) nth: usize,
    pub(super) asid: u32,
    /// The misses that are being served, one for each instruction that waits, until a purge cancels them (the fault maps).
    pub(super) armed: SmallVec<[Miss; 2]>,
}

/// A miss, and the pages in which a purge cancels it.
pub(super) struct Miss {
    pub(super) serial: u64,
    pub(super) pages: VpnRange,
}

impl Loaded {
    /// Whether the miss is still armed; it is not any more.
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
    /// Misses so far.
    pub(super) misses: u64,
}

/// A GRU.
pub struct Gru {
    pub(super) config: GruConfig,
    /// Taken before `chip`.
    pub(super) handles: Handles,
    pub(super) chip: Mutex<Chip>,
}

impl Gru {
    /// GRUs of one machine, all alike, two on each blade.
    pub fn several(count: usize, config: GruConfig) -> Vec<Arc<Self>> {
        let make = |nth| {
            Arc::new(Self {
                config,
                handles: Handles::on_blade(nth / 2),
                chip: Mutex::new(Chip {
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
    /// What it has done so far.
    pub fn stats(&self) -> GruStats {
        GruStats {
            handle_waits: self.handles.waits(),
            ..self.chip.lock().stats
        }
    }
    /// Entries of its TLB, whether anybody can use them or not.
    pub fn tlb_len(&self) -> usize {
        self.chip.lock().tlb.len()
    }
    pub(super) fn lock(&self) -> MutexGuard<'_, Chip> {
        self.chip.lock()
    }
}

impl Chip {
    #[inline(always)]
    pub(super) fn slot_of(&mut self, context: u64) -> Option<&mut Loaded> {
        let mut loaded = self.slots.iter_mut().flatten();
        loaded.find(|l| l.context == context)
    }
    /// Another identifier, none of a loaded context.
    pub(super) fn new_asid(&mut self) -> u32 {
        let in_use: Vec<u32> = self.slots.iter().flatten().map(|l| l.asid).collect();
        let (asid, before) = self.asids.next(&in_use);
        if before == Before::FlushAll {
            self.tlb.clear();
            self.stats.flushes += 1;
        }
        asid
    }
    /// A slot that is free, or made free: its context is stolen from.
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
