//! A region: the list of its pages, its part of the adapter's table, and its windows
//! (`struct ib_umem_odp`).

use super::mistake::OdpMistake;
use crate::{
    addr::{Vpn, VpnRange},
    ctx::{AtomicCallbackCx, CallCx, CallbackCx, Sleepable},
    extmmu::bill::Meter,
    mm::Mm,
    notifier::{
        Access, Ack, Cached, ExternalMmu, Gate, GateGuard, Invalidation, OrderedStore, Seat,
        ShadowStore, Translation, WouldBlock,
    },
    sync::{AtomicBool, Mutex, Ordering},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Weak},
};

/// The configuration of the regions of an adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OdpConfig {
    /// True if the table has entries of 2 MiB.
    pub huge: bool,
    /// Pages of a child of an implicit region: a power of two, or rounded up to one; at most those
    /// of a process.
    pub child_pages: u64,
    /// A mistake made on purpose, for a test that must find it.
    pub mistake: Option<OdpMistake>,
}

impl Default for OdpConfig {
    fn default() -> Self {
        Self {
            huge: true,
            child_pages: 1 << 14,
            mistake: None,
        }
    }
}

/// The region's part of the adapter's table.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// By first page.
    pub(super) entries: BTreeMap<Vpn, Cached>,
    /// Updates that the adapter has not done, for the mistake.
    posted: Vec<VpnRange>,
    /// Pages that could not be had, for the mistake.
    pub(super) refused: BTreeSet<Vpn>,
}

/// The parts that the regions of one key have in common.
#[derive(Clone)]
pub(super) struct Parts {
    pub(super) mm: Weak<Mm>,
    pub(super) access: Access,
    pub(super) config: OdpConfig,
    pub(super) meter: Arc<Meter>,
}

/// The numbers of the children that windows have emptied, and the own one.
pub(super) type Emptied = (Arc<Mutex<BTreeSet<u64>>>, u64);

/// A part of a process's memory that an adapter may use.
pub struct Region {
    pub(super) parts: Parts,
    pub(super) pages: VpnRange,
    pub(super) gate: Gate<OrderedStore<Vpn>, Table, Sleepable>,
    /// For a child.
    emptied: Option<Emptied>,
    ended: AtomicBool,
}

impl Parts {
    pub(super) fn made(&self, mistake: OdpMistake) -> bool {
        self.config.mistake == Some(mistake)
    }
}

impl Table {
    /// Returns the entry of a page.
    pub(super) fn get(&self, at: Vpn) -> Option<Cached> {
        let (_, entry) = self.entries.range(..=at).next_back()?;
        entry.range().contains(at).then_some(*entry)
    }
    /// Enters a translation, in place of those of its pages.
    pub(super) fn put(&mut self, entry: Cached) {
        self.zap(entry.range(), |_| true);
        self.entries.insert(entry.range().start(), entry);
    }
    /// Removes the entries of a range for which `goes` is true.
    fn zap(&mut self, range: VpnRange, goes: impl Fn(VpnRange) -> bool) {
        let before = self.entries.range(..range.start()).next_back();
        let first = before.filter(|(_, entry)| entry.range().overlaps(range));
        let from = first.map_or(range.start(), |(at, _)| *at);
        let hit = self.entries.range(from..range.end());
        let gone: Vec<Vpn> = hit
            .filter(|(_, e)| goes(e.range()))
            .map(|(at, _)| *at)
            .collect();
        for at in gone {
            self.entries.remove(&at);
        }
    }
    pub(super) fn do_posted(&mut self) {
        for range in std::mem::take(&mut self.posted) {
            self.zap(range, |_| true);
        }
    }
}

impl Region {
    pub(super) fn new(
        seat: Seat,
        pages: VpnRange,
        parts: Parts,
        emptied: Option<Emptied>,
    ) -> Arc<Self> {
        Arc::new(Self {
            parts,
            pages,
            gate: Gate::new(seat, OrderedStore::default(), Table::default()),
            emptied,
            ended: AtomicBool::new(false),
        })
    }
    /// Returns the pages of the region.
    pub fn pages(&self) -> VpnRange {
        self.pages
    }
    /// Returns the number of entries in the adapter's table.
    pub fn entries(&self, cx: &mut CallCx<'_>) -> usize {
        self.gate.lock(cx).state().entries.len()
    }
    /// Returns the meter of the region's windows and faults.
    pub fn meter(&self) -> &Meter {
        &self.parts.meter
    }
    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }
    /// Takes the pages of a window out of the adapter's table, and waits for the adapter.
    fn zap(&self, table: &mut Table, range: VpnRange) {
        table.do_posted();
        let short = || VpnRange::new(range.start(), Vpn(range.end().0 - 1));
        match self.parts.config.mistake {
            Some(OdpMistake::NoZap) => {}
            Some(OdpMistake::NoWait) => table.posted.push(range),
            Some(OdpMistake::ShortZap) => short().into_iter().for_each(|r| table.zap(r, |_| true)),
            Some(OdpMistake::PartKeepsHuge) => table.zap(range, |entry| range.covers(entry)),
            _ => table.zap(range, |_| true),
        }
        if let Some((emptied, number)) = &self.emptied
            && table.entries.is_empty()
        {
            emptied.lock().insert(*number);
        }
    }
    /// Looks a page up in the adapter's table, and makes the access if it is there. `f` gets a
    /// translation that allows the access.
    pub(super) fn hit<V>(
        &self,
        cx: &mut CallCx<'_>,
        at: Vpn,
        access: Access,
        f: impl FnOnce(&Self, &Cached) -> V,
    ) -> Option<V> {
        let mut guard = self.gate.lock(cx);
        guard.state().do_posted();
        let allows = |entry: &Cached| access == Access::Read || entry.is_writable();
        let entry = guard.state().get(at).filter(allows)?;
        if self.parts.made(OdpMistake::UsesUnlocked) {
            drop(guard);
        }
        Some(f(self, &entry))
    }
    /// Writes bytes of a page through an entry.
    pub(super) fn write_by(&self, entry: &Cached, (at, offset): (Vpn, usize), bytes: &[u8]) {
        let frame = self.gate.follow_mut(entry, at);
        let mut frame = frame.expect("an entry of this region that may be written");
        match self.parts.made(OdpMistake::LostDirty) {
            true => frame.write_deferring_dirty(offset, bytes),
            false => frame.write(offset, bytes),
        }
    }
    pub(super) fn lock<'p>(
        &'p self,
        cx: &'p mut CallCx<'_>,
    ) -> GateGuard<'p, OrderedStore<Vpn>, Table, Sleepable> {
        self.gate.lock(cx)
    }
}

impl ExternalMmu for Region {
    fn invalidate_start<'i>(&self, mut cx: CallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        self.parts.meter.begin(inv.range());
        self.gate.exclude_with(&mut cx, inv, |table, gone, _| {
            self.zap(table, gone.range());
            self.parts
                .meter
                .dropped_all(gone.entries().iter().map(|entry| entry.range()));
        })
    }
    /// Refuses if the lock is held: its holder may wait for the adapter.
    fn try_invalidate_start<'i>(
        &self,
        cx: AtomicCallbackCx<'_>,
        inv: Invalidation<'i>,
    ) -> Result<Ack<'i>, WouldBlock> {
        let range = inv.range();
        let ack = self
            .gate
            .try_exclude(cx, inv, |table, range| self.zap(table, range))?;
        self.parts.meter.begin(range);
        Ok(ack)
    }
    fn invalidate_end(&self, cx: AtomicCallbackCx<'_>, range: VpnRange) {
        let _unused = cx;
        self.parts.meter.end(range);
    }
    fn release(&self, cx: CallbackCx<'_>) {
        let _unused = cx;
        self.ended.store(true, Ordering::Release);
    }
    fn name(&self) -> &'static str {
        "ODP"
    }
    fn translations(&self, visit: &mut dyn FnMut(Translation)) -> bool {
        self.gate.audited_parts(|list, table| {
            list.for_each(&mut |entry| visit(entry.translation()));
            table
                .entries
                .values()
                .for_each(|entry| visit(entry.translation()));
        })
    }
}

impl std::fmt::Debug for Region {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Region")
            .field("pages", &self.pages)
            .field("access", &self.parts.access)
            .finish_non_exhaustive()
    }
}
