//! A virtual machine: its gates, its slots, its TLBs and its account of windows.

use super::{
    account::Account,
    active::Active,
    attributes::Attributes,
    cached_page::CachedPage,
    config::{GuestMemoryMistake, KvmMistake, VmConfig},
    guest_entries::GuestEntries,
    memslot::MemSlots,
    shadow::ShadowPages,
    tlbs::{KnownTlbs, SharedTlb},
};
use crate::{
    addr::{Vpn, VpnRange},
    ctx::{Atomic, CallCx},
    extmmu::bill::{Bill, Meter},
    mm::Mm,
    notifier::{Gates, Registration, Seat},
    sync::{AtomicU64, AtomicUsize, CachePadded, Mutex, Ordering, RwLock},
};
use std::sync::{Arc, Weak};

/// The state under an mmu lock, beside its part of the page table.
#[derive(Debug, Default)]
pub(super) struct State {
    /// The open windows over slots.
    pub(super) account: Account,
    /// The TLBs that have had translations of these pages.
    pub(super) tlbs: KnownTlbs,
    /// The frames that the guest has written, of slots that log.
    pub(super) log: std::collections::BTreeSet<(u16, u64)>,
}

/// The counters of one gate that are read without its mmu lock.
#[derive(Debug, Default)]
pub(super) struct Share {
    /// The number of windows over slots that have ended (`mmu_invalidate_seq`). Written under the
    /// gate.
    pub(super) seq: AtomicU64,
    /// The number of open windows over slots that begin at one of these pages.
    pub(super) over_slots: AtomicU64,
}

/// A virtual machine.
pub struct Vm {
    pub(super) mm: Weak<Mm>,
    pub(super) config: VmConfig,
    pub(super) gates: Gates<ShadowPages, State, Atomic>,
    /// Indexed by the place of the gate.
    pub(super) shares: Box<[CachePadded<Share>]>,
    /// The entries of guest files' pages.
    pub(super) guest: GuestEntries,
    /// The kinds of guest frames.
    pub(super) attributes: Attributes,
    /// Held while slots or attributes change.
    pub(super) slots_lock: Mutex<()>,
    /// The windows, over any range, that have begun and not ended.
    pub(super) active: Active,
    /// The slots now. Each gate has a copy, and that copy decides.
    pub(super) slots: Mutex<Arc<MemSlots>>,
    /// The generation of `slots`.
    pub(super) generation: AtomicU64,
    pub(super) caches: Mutex<Vec<Weak<CachedPage>>>,
    /// The number of caches when they were last counted; 0 spares windows the lock.
    pub(super) has_caches: AtomicUsize,
    /// The TLBs of all processors, for audits.
    pub(super) tlbs: RwLock<Vec<SharedTlb>>,
    pub(super) meter: Meter,
}

impl Vm {
    /// Creates a machine without memory slots, registered on the address space (`KVM_CREATE_VM`).
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::extmmu::kvm::{Gfn, MemSlot, SlotFlags, Vm, VmConfig};
    /// use emmu::{PAGE_SIZE, addr::Vpn, mm::MmapArgs};
    /// # let machine = emmu::Machine::new(Default::default());
    /// # let mut thread = machine.enter()?;
    /// # let mut cx = thread.cx();
    /// # let mm = emmu::Mm::new(&machine);
    ///
    /// // Four pages of the process are the guest's memory, from guest address 0 on.
    /// let at = mm.mmap(&mut cx, &MmapArgs::anonymous(4 * PAGE_SIZE))?;
    /// let (vm, registration) = Vm::create(&mut cx, &mm, VmConfig::default());
    /// let (hva, flags) = (Vpn::containing(at), SlotFlags::empty());
    /// vm.set_memory(&mut cx, MemSlot { id: 0, gfn: Gfn(0), pages: 4, hva, flags })?;
    ///
    /// vm.vcpu(&mut cx).store(&mut cx, PAGE_SIZE, 7)?;
    /// assert_eq!(mm.load(&mut cx, at + PAGE_SIZE)?, 7);
    /// mm.unregister(&mut cx, registration);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn create(
        cx: &mut CallCx<'_>,
        mm: &Arc<Mm>,
        config: VmConfig,
    ) -> (Arc<Self>, Registration) {
        mm.register(cx, |seat| Self::new(seat, Arc::downgrade(mm), config))
    }
    pub(super) fn new(seat: Seat, mm: Weak<Mm>, config: VmConfig) -> Arc<Self> {
        let gates = Gates::new(seat, || (ShadowPages::default(), State::default()));
        Arc::new(Self {
            mm,
            config,
            shares: (0..gates.count()).map(|_| CachePadded::default()).collect(),
            active: Active::new(gates.count()),
            gates,
            guest: GuestEntries::default(),
            attributes: Attributes::default(),
            slots_lock: Mutex::default(),
            slots: Mutex::default(),
            generation: AtomicU64::new(0),
            caches: Mutex::default(),
            has_caches: AtomicUsize::new(0),
            tlbs: RwLock::default(),
            meter: Meter::default(),
        })
    }
    /// Returns the counts of windows, faults and retries so far.
    pub fn bill(&self) -> Bill {
        self.meter.bill()
    }
    /// Returns the meter that keeps the [`Bill`].
    pub fn meter(&self) -> &Meter {
        &self.meter
    }
    /// Returns the number of shadow entries.
    pub fn entries(&self, cx: &mut CallCx<'_>) -> usize {
        let mut entries = 0;
        self.gates
            .each(cx, VpnRange::ALL, |_, gate| entries += gate.store().len());
        entries
    }
    /// Returns the number of windows over slots that have ended (`mmu_invalidate_seq`), added up
    /// over the gates that they passed.
    pub fn sequence(&self) -> u64 {
        self.shares
            .iter()
            .map(|s| s.0.seq.load(Ordering::Acquire))
            .sum()
    }
    /// Returns the sequence that a fault on this page must compare. Acquire pairs with the Release
    /// of a window's end.
    pub(super) fn sequence_at(&self, at: Vpn) -> u64 {
        let share = &self.shares[self.gates.place_of(at)].0;
        share.seq.load(Ordering::Acquire)
    }
    /// Returns the number of open windows: over any range, and over slots
    /// (`mn_active_invalidate_count`, `mmu_invalidate_in_progress`).
    pub fn in_progress(&self) -> (u64, u64) {
        let shares = self.shares.iter();
        let over_slots = shares.map(|s| s.0.over_slots.load(Ordering::Relaxed)).sum();
        (self.active.count(), over_slots)
    }
    /// Returns the number of open windows over any range (`mn_active_invalidate_count`).
    pub fn active_windows(&self) -> u64 {
        self.active.count()
    }
    pub(super) fn made(&self, mistake: KvmMistake) -> bool {
        self.config.mistake == Some(mistake)
    }
    pub(super) fn guest_made(&self, mistake: GuestMemoryMistake) -> bool {
        self.config.guest_mistake == Some(mistake)
    }
}

impl std::fmt::Debug for Vm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vm")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
