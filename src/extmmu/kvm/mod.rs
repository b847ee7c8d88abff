//! KVM: a virtual machine whose memory is pages of an address space, translated by page tables of its own.
//!
//! It never sleeps in a callback. The rules are those of `virt/kvm/kvm_main.c` (5.12 and later), with one difference: there
//! is not one mmu lock but several, the [gates](Gates), each for some 2-MiB blocks of pages, with a count, a forbidden range
//! and a sequence of its own. Windows and faults elsewhere meet none of it.
//!
//! * a window first ends the validity of [gfn-to-pfn caches](PfnCache), then takes the mmu lock, counts itself in, widens the
//!   forbidden range of guest frames, zaps, and flushes what it zapped from the TLBs of the processors before the lock goes
//!   (`kvm_mmu_notifier_invalidate_range_start`); so lock by lock, for each that has pages of it;
//! * its end advances the sequence before it counts itself out (`…_range_end`);
//! * a fault takes the sequence, looks the page up, takes the lock, and tries again if its frame is in the forbidden
//!   range or the sequence has moved (`mmu_invalidate_retry_gfn`);
//! * memory slots do not change while a window is open.
//!
//! ```text
//! shadow page table: gfn -> frame       its page's gate  4 levels, 4 KiB and 2 MiB
//! TLB of a processor: gfn -> frame      its own lock     filled under the page's gate, flushed under it
//! PfnCache: gpa -> frame                its own lock     validated under its own lock
//! slots: gfn -> page                    replaced gate by gate, with no window open
//! ```
//!
//! | file | |
//! | --- | --- |
//! | `memslot` | which guest frames are which pages |
//! | `shadow` | the page table |
//! | `vcpu` | loads and stores of a processor |
//! | `fault` | how an entry comes to be |
//! | `notify` | what a window does |
//! | `active` | windows that are open; changes of slots wait for none |
//! | `slots` | changing slots; the dirty log |
//! | `pfncache` | the second consumer |

mod active;
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
pub use memslot::{Gfn, MemSlot, MemSlots, SlotError, SlotFlags};
pub use pfncache::PfnCache;
pub use shadow::ShadowPages;
pub use slots::NewSlots;
pub use vcpu::Vcpu;

use super::{
    References,
    bill::{Bill, Meter},
    tlb::Tlb,
};
use crate::ctx::CallCx;

use crate::{
    addr::{Vpn, VpnRange},
    ctx::Atomic,
    mm::Mm,
    notifier::{Cached, Gates, Registration, Seat},
    sync::{AtomicU64, AtomicUsize, CachePadded, Mutex, Ordering, RwLock},
};
use active::Active;
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

/// What an mmu lock guards beside its part of the page table.
#[derive(Debug, Default)]
struct State {
    /// Windows over slots that are open.
    in_progress: u64,
    /// Guest frames that they cover, taken together; never shrinks while one of them is open.
    forbidden: Option<(Gfn, Gfn)>,
    /// The TLBs that have had translations of these pages.
    tlbs: Vec<SharedTlb>,
    /// Frames written by the guest, of slots that log.
    log: std::collections::BTreeSet<(u16, u64)>,
}

/// What is read without the mmu lock.
#[derive(Debug, Default)]
struct Share {
    /// `mmu_invalidate_seq`: windows over slots that have ended. Written under the gate.
    seq: AtomicU64,
    /// Windows over slots that begin at one of these pages and are open.
    over_slots: AtomicU64,
}

/// A virtual machine.
pub struct Vm {
    mm: Weak<Mm>,
    config: VmConfig,
    gates: Gates<ShadowPages, State, Atomic>,
    /// By the place of the gate.
    shares: Box<[CachePadded<Share>]>,
    /// Windows that have begun and not ended, of any range.
    active: Active,
    /// The slots now; each gate has them too, and what it says holds.
    slots: Mutex<Arc<MemSlots>>,
    /// Their generation.
    generation: AtomicU64,
    caches: Mutex<Vec<Weak<pfncache::Shared>>>,
    /// How many there have been since one was gone.
    has_caches: AtomicUsize,
    /// All of them, for an audit.
    tlbs: RwLock<Vec<SharedTlb>>,
    meter: Meter,
}

impl Vm {
    /// A machine without memory slots, on the address space's chain (`KVM_CREATE_VM`).
    pub fn create(
        cx: &mut CallCx<'_>,
        mm: &Arc<Mm>,
        config: VmConfig,
    ) -> (Arc<Self>, Registration) {
        mm.register(cx, |seat| Self::new(seat, Arc::downgrade(mm), config))
    }
    fn new(seat: Seat, mm: Weak<Mm>, config: VmConfig) -> Arc<Self> {
        let gates = Gates::new(seat, || (ShadowPages::default(), State::default()));
        Arc::new(Self {
            mm,
            config,
            shares: (0..gates.count()).map(|_| CachePadded::default()).collect(),
            active: Active::new(gates.count()),
            gates,
            slots: Mutex::default(),
            generation: AtomicU64::new(0),
            caches: Mutex::default(),
            has_caches: AtomicUsize::new(0),
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
    pub fn entries(&self, cx: &mut CallCx<'_>) -> usize {
        let mut entries = 0;
        self.gates
            .each(cx, VpnRange::ALL, |_, gate| entries += gate.store().len());
        entries
    }
    /// Windows over its slots that have ended (`mmu_invalidate_seq`), added up over the gates that they passed.
    pub fn sequence(&self) -> u64 {
        self.shares
            .iter()
            .map(|s| s.0.seq.load(Ordering::Acquire))
            .sum()
    }
    /// The sequence that a fault on this page has to watch.
    fn sequence_at(&self, at: Vpn) -> u64 {
        let share = &self.shares[self.gates.place_of(at)].0;
        share.seq.load(Ordering::Acquire)
    }
    /// Windows that are open now: of any range, and of its slots (`mn_active_invalidate_count`,
    /// `mmu_invalidate_in_progress`).
    pub fn in_progress(&self) -> (u64, u64) {
        let shares = self.shares.iter();
        let over_slots = shares.map(|s| s.0.over_slots.load(Ordering::Relaxed)).sum();
        (self.active.count(), over_slots)
    }
    /// Windows that are open now, of any range (`mn_active_invalidate_count`).
    pub fn active_windows(&self) -> u64 {
        self.active.count()
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
