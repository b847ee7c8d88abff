//! The TLBs of processors, and the ones that a lock has to flush.

use super::{gfn::Gfn, guest_entry::GuestEntry, memslot::MemSlots};
use crate::{
    extmmu::tlb::{PageSize, Tlb},
    notifier::Cached,
    sync::SpinLock,
};
use std::sync::Arc;

/// The number of entries of a processor's TLB.
pub(super) const TLB_ENTRIES: usize = 1536;

/// A processor's TLB, which other processors flush.
pub(super) type SharedTlb = Arc<SpinLock<VcpuTlb>>;

/// The TLB of a processor, in two parts: they are filled and flushed under different locks.
#[derive(Debug)]
pub(super) struct VcpuTlb {
    /// Translations of pages of the process.
    pub(super) process: Tlb<Cached>,
    /// Translations of pages of guest files. Made with the first one; the number of the address
    /// space is 1 for addresses with the C-bit.
    guest: Option<Tlb<GuestEntry>>,
    /// The slots as the processor last saw them. Those of the gate decide.
    pub(super) slots: Arc<MemSlots>,
}

impl VcpuTlb {
    pub(super) fn new(entries: usize) -> SharedTlb {
        Arc::new(SpinLock::new(Self {
            process: Tlb::new(entries),
            guest: None,
            slots: Arc::default(),
        }))
    }
    /// Returns the translation of a guest file's page.
    pub(super) fn guest(&self, encrypted: bool, gfn: Gfn) -> Option<&GuestEntry> {
        self.guest.as_ref()?.get(u32::from(encrypted), gfn.0)
    }
    /// Iterates over the translations of pages of guest files.
    pub(super) fn guests(&self) -> impl Iterator<Item = &GuestEntry> {
        self.guest.iter().flat_map(|tlb| tlb.iter().map(|(_, e)| e))
    }
    fn remove_guests(&mut self, first: Gfn, end: Gfn) {
        if let Some(tlb) = &mut self.guest {
            tlb.remove_in(0, first.0, end.0);
            tlb.remove_in(1, first.0, end.0);
        }
    }
}

/// The TLBs that have had translations made under one lock.
#[derive(Debug, Default)]
pub(super) struct KnownTlbs(Vec<SharedTlb>);

impl KnownTlbs {
    fn note(&mut self, tlb: &SharedTlb) {
        if !self.0.iter().any(|known| Arc::ptr_eq(known, tlb)) {
            self.0.push(Arc::clone(tlb));
        }
    }
    /// Returns the number of TLBs.
    pub(super) fn len(&self) -> u64 {
        self.0.len() as u64
    }
    /// Enters a translation of the page of `gfn`, of either size. From now on a zap of these pages
    /// flushes the TLB.
    pub(super) fn enter(&mut self, tlb: &SharedTlb, gfn: Gfn, cached: Cached) {
        self.note(tlb);
        let size = PageSize::of(cached.range().pages());
        let _evicted = tlb.lock().process.insert(0, gfn.0, size, cached);
    }
    /// Enters a translation of a guest file's page, for addresses with or without the C-bit.
    pub(super) fn enter_guest(&mut self, tlb: &SharedTlb, encrypted: bool, entry: GuestEntry) {
        self.note(tlb);
        let mut tlb = tlb.lock();
        let guest = tlb.guest.get_or_insert_with(|| Tlb::new(TLB_ENTRIES));
        let (asid, page) = (u32::from(encrypted), entry.gfn.0);
        let _evicted = guest.insert(asid, page, PageSize::Small, entry);
    }
    /// Flushes the translations of the process's pages from the TLBs.
    ///
    /// The lock of a TLB is held during an instruction, so with the lock the processor is between
    /// two instructions: it has seen the flush when this returns.
    pub(super) fn flush(&mut self) {
        for tlb in &self.0 {
            tlb.lock().process.clear();
        }
    }
    /// Flushes those of some guest frames.
    pub(super) fn flush_gfns<I: Iterator<Item = (Gfn, Gfn)>>(&mut self, gfns: impl Fn() -> I) {
        for tlb in &self.0 {
            let mut tlb = tlb.lock();
            for (first, end) in gfns() {
                tlb.process.remove_in(0, first.0, end.0);
            }
        }
    }
    /// Flushes the translations of guest files' pages at guest frames `[first, end)`.
    pub(super) fn flush_guests(&mut self, first: Gfn, end: Gfn) {
        for tlb in &self.0 {
            tlb.lock().remove_guests(first, end);
        }
    }
}
