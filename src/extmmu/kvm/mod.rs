//! KVM: a virtual machine whose memory is pages of an address space, translated by page tables of its own.
//!
//! It never sleeps in a callback. The rules are those of `virt/kvm/kvm_main.c` (5.12 and later):
//!
//! * a window first ends the validity of [gfn-to-pfn caches](PfnCache), then takes the mmu lock, which is the gate, counts
//!   itself in, widens the forbidden range of guest frames, zaps, and flushes the TLBs of the processors before the lock
//!   goes (`kvm_mmu_notifier_invalidate_range_start`);
//! * its end advances the sequence before it counts itself out (`…_range_end`);
//! * a fault takes the sequence, looks the page up, takes the lock, and tries again if its frame is in the forbidden
//!   range or the sequence has moved (`mmu_invalidate_retry_gfn`);
//! * memory slots do not change while a window is open.
//!
//! ```text
//! shadow page table: gfn -> frame       the gate         4 levels, 4 KiB and 2 MiB
//! TLB of a processor: gfn -> frame      its own lock     filled under the gate, flushed under the gate
//! PfnCache: gpa -> frame                its own lock     validated under its own lock
//! slots: gfn -> page                    replaced under the gate, with no window open
//! ```
//!
//! | file | |
//! | --- | --- |
//! | `memslot` | which guest frames are which pages |
//! | `shadow` | the page table |
//! | `vcpu` | loads and stores of a processor |
//! | `fault` | how an entry comes to be |
//! | `notify` | what a window does |
//! | `slots` | changing slots; the dirty log |
//! | `pfncache` | the second consumer |

mod fault;
mod memslot;
#[cfg(all(test, loom))]
mod models;
mod notify;
mod pfncache;
mod shadow;
mod slots;
mod vcpu;

pub use fault::Exit;
pub use memslot::{Gfn, MemSlot, SlotError, SlotFlags, Slots};
pub use pfncache::PfnCache;
pub use shadow::ShadowPages;
pub use vcpu::Vcpu;

use super::{
    References,
    bill::{Bill, Meter},
    tlb::Tlb,
};
use crate::{
    ctx::{Atomic, Cx, Sleepable, rank},
    mm::Mm,
    notifier::{Cached, Gate, Registration, Seat},
    sync::{AtomicU64, Condvar, Mutex, Ordering, RwLock},
};
use std::sync::{Arc, Weak};

/// What the processor's page-table walk notes in entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessedBits {
    /// Accessed bits.
    #[default]
    Present,
    /// None, as in early EPT: aging takes an entry that exists for a used one and zaps it.
    Absent,
}

/// How a virtual machine behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VmConfig {
    /// References on frames.
    pub references: References,
    /// Accessed bits.
    pub accessed: AccessedBits,
    /// A mistake made on purpose, to see it found.
    pub mistake: Option<Mistake>,
}

/// Mistakes that were made in drivers of this kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// TLBs are not flushed when entries are zapped (B23).
    NoFlush,
    /// They are flushed at the end of the window.
    LateFlush,
    /// The last page of a range is not flushed.
    ShortFlush,
    /// What was looked up is used without asking whether it still holds (B11).
    NoRetry,
    /// The dirty bit is not set in the entry (B26).
    LostDirty,
    /// A gfn-to-pfn cache becomes valid outside of its lock (B22).
    EarlyValid,
    /// A gfn-to-pfn cache is not told of windows.
    DeafCache,
    /// The end of a window does not find the slots that its beginning found, and does not count it out (B34).
    LostEnd,
}

/// Entries of a processor's TLB.
const TLB_ENTRIES: usize = 1536;

/// A processor's TLB, which others flush.
type SharedTlb = Arc<Mutex<Tlb<Cached>>>;

/// What the mmu lock guards beside the page table.
#[derive(Debug, Default)]
struct State {
    /// Windows over slots that are open.
    in_progress: u64,
    /// Guest frames that they cover, taken together; never shrinks while one of them is open.
    forbidden: Option<(Gfn, Gfn)>,
    tlbs: Vec<SharedTlb>,
    /// Frames written by the guest, of slots that log.
    log: std::collections::BTreeSet<(u16, u64)>,
    flushes: u64,
}

/// A virtual machine.
pub struct Vm {
    mm: Weak<Mm>,
    config: VmConfig,
    gate: Gate<ShadowPages, State, Atomic>,
    /// `mmu_invalidate_seq`: windows over slots that have ended. Written under the gate.
    seq: AtomicU64,
    /// Windows that have begun and not ended, of any range; slots are replaced while there is none.
    active: Mutex<u64>,
    /// The state's `in_progress`, to be read without the gate.
    over_slots: AtomicU64,
    idle: Condvar,
    caches: Mutex<Vec<Weak<pfncache::Shared>>>,
    /// The same as in the state, for an audit.
    tlbs: RwLock<Vec<SharedTlb>>,
    meter: Meter,
}

impl Vm {
    /// A machine without memory slots, on the address space's chain (`KVM_CREATE_VM`).
    pub fn create(
        cx: &mut Cx<'_, rank::Idle, Sleepable>,
        mm: &Arc<Mm>,
        config: VmConfig,
    ) -> (Arc<Self>, Registration) {
        mm.register(cx, |seat| Self::new(seat, Arc::downgrade(mm), config))
    }
    fn new(seat: Seat, mm: Weak<Mm>, config: VmConfig) -> Arc<Self> {
        Arc::new(Self {
            mm,
            config,
            gate: Gate::new(seat, ShadowPages::default(), State::default()),
            seq: AtomicU64::new(0),
            active: Mutex::default(),
            over_slots: AtomicU64::new(0),
            idle: Condvar::new(),
            caches: Mutex::default(),
            tlbs: RwLock::default(),
            meter: Meter::default(),
        })
    }
    /// What it had to pay so far.
    pub fn bill(&self) -> Bill {
        self.meter.bill()
    }
    /// What keeps its bill.
    pub fn meter(&self) -> &Meter {
        &self.meter
    }
    /// Shadow entries now.
    pub fn entries(&self, cx: &mut Cx<'_, rank::Idle, Sleepable>) -> usize {
        self.gate.lock(cx).store().len()
    }
    /// Windows over its slots that have ended (`mmu_invalidate_seq`).
    pub fn sequence(&self) -> u64 {
        self.seq.load(Ordering::Acquire)
    }
    /// Windows that are open now: of any range, and of its slots (`mn_active_invalidate_count`,
    /// `mmu_invalidate_in_progress`).
    pub fn in_progress(&self, cx: &mut Cx<'_, rank::Idle, Sleepable>) -> (u64, u64) {
        let in_progress = self.gate.lock(cx).state().in_progress;
        (*self.active.lock(), in_progress)
    }
    /// Windows that are open now, of any range (`mn_active_invalidate_count`).
    pub fn active_windows(&self) -> u64 {
        *self.active.lock()
    }
    fn made(&self, mistake: Mistake) -> bool {
        self.config.mistake == Some(mistake)
    }
}

impl std::fmt::Debug for Vm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vm")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
