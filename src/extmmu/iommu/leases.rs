//! The leases that live: a window waits for them, or revokes them.
//!
//! Guarantee: when [`take_back`](Leases::take_back) returns, no lease of a page in the range is
//! good, and none is given while the returned value lives. Its holder removes the range from the
//! IOTLB meanwhile, under the gate; a lease is given only with the gate locked and the page in the
//! IOTLB. So the last access through a slice comes before the entry gives up its frame.
//!
//! The table has one lock, a leaf of the lock order. A window looks at all leases, which are few:
//! those of the transfers under way.

use super::{
    config::{IommuConfig, IommuMistake, OnWindow},
    lease::{Facts, Lease},
    stale_use::{SliceUse, StaleUse},
};
use crate::{
    addr::{Vpn, VpnRange},
    extmmu::{dirty_pages::DirtyPages, vm_memory::Zeros},
    frame::PhysMem,
    notifier::{Event, Translation, WouldBlock},
    sync::{Condvar, Mutex, OnceLock, Ordering::SeqCst},
};
use std::{
    collections::BTreeMap,
    sync::Arc,
    thread::{ThreadId, current},
};

/// The leases of one IOMMU.
pub(super) struct Leases {
    mem: Arc<PhysMem>,
    config: IommuConfig,
    table: Mutex<Table>,
    /// A lease has ended, or a thread waits for memory.
    changed: Condvar,
    stale_use: OnceLock<StaleUse>,
    /// Shown in place of the zero page, which all processes have.
    pub(super) zeros: Box<Zeros>,
    pub(super) dirty: DirtyPages,
}

#[derive(Default)]
struct Table {
    /// The number of the next lease.
    next: u64,
    live: BTreeMap<u64, Arc<Lease>>,
    /// Threads that have leases and wait for memory, or for leases: a window does not wait for
    /// them.
    asking: Vec<ThreadId>,
    /// Pages of which no leases are given, as windows over them are about to open.
    closing: Vec<VpnRange>,
}

impl Table {
    /// Returns the good leases of pages in a range.
    fn over(&self, range: VpnRange) -> impl Iterator<Item = &Arc<Lease>> {
        let live = self.live.values();
        live.filter(move |lease| range.contains(lease.page()) && !lease.is_revoked())
    }
    /// Returns true if a window of this thread over the range has to wait.
    fn is_awaited(&self, range: VpnRange, how: OnWindow) -> bool {
        let me = current().id();
        self.over(range).any(|lease| {
            let wanted = how == OnWindow::Wait || lease.iterated.load(SeqCst);
            wanted && lease.is_held() && lease.thread != me && !self.asking.contains(&lease.thread)
        })
    }
}

impl Leases {
    pub(super) fn new(mem: &Arc<PhysMem>, config: IommuConfig) -> Arc<Self> {
        Arc::new(Self {
            mem: Arc::clone(mem),
            config,
            table: Mutex::default(),
            changed: Condvar::new(),
            stale_use: OnceLock::new(),
            zeros: Zeros::new(),
            dirty: DirtyPages::default(),
        })
    }
    /// Returns true if the IOMMU makes this mistake on purpose.
    pub(super) fn made(&self, mistake: IommuMistake) -> bool {
        self.config.mistake == Some(mistake)
    }
    /// Returns the number of leases.
    pub(super) fn len(&self) -> usize {
        self.table.lock().live.len()
    }
    /// Gives leases to an iterator that is about to begin. The gate of the IOTLB is locked.
    ///
    /// # Errors
    ///
    /// A page of which none is given now.
    pub(super) fn give(self: &Arc<Self>, all: Vec<Facts>) -> Result<Vec<Holder>, Vpn> {
        let mut table = self.table.lock();
        let closes = |page: &Vpn| table.closing.iter().any(|range| range.contains(*page));
        let mut pages = all.iter().map(|facts| facts.translation.range().start());
        if let Some(page) = pages.find(closes) {
            return Err(page);
        }
        let give = |facts| {
            let lease = Arc::new(Lease::new(table.next, facts));
            table.next += 1;
            table.live.insert(lease.id, Arc::clone(&lease));
            Holder::new(self, &lease)
        };
        Ok(all.into_iter().map(give).collect())
    }
    /// Takes a lease out of the table if it has no holders any more.
    pub(super) fn end(&self, lease: &Lease) {
        let mut table = self.table.lock();
        if !lease.is_held() {
            let _ended = table.live.remove(&lease.id);
        }
        drop(table);
        self.changed.notify_all();
    }
    /// Notes that iterators have ended, which windows wait for.
    pub(super) fn iterators_ended(&self) {
        // A window that has looked before is asleep now.
        drop(self.table.lock());
        self.changed.notify_all();
    }
    /// Returns the lease with this number.
    pub(super) fn by_id(self: &Arc<Self>, id: u64) -> Option<Holder> {
        let table = self.table.lock();
        Some(Holder::new(self, table.live.get(&id)?))
    }
    /// Returns the lease of the byte at an I/O address: the latest one of this thread, or else of
    /// another.
    pub(super) fn at(self: &Arc<Self>, iova: u64) -> Option<Holder> {
        let table = self.table.lock();
        let me = current().id();
        let mut there = table.live.values().rev().filter(|lease| lease.has(iova));
        let latest = there.clone().next()?;
        let own = there.find(|lease| lease.thread == me);
        Some(Holder::new(self, own.unwrap_or(latest)))
    }
    /// Shows the translations of the good leases.
    pub(super) fn for_each(&self, visit: &mut dyn FnMut(Translation)) {
        let table = self.table.lock();
        let good: Vec<_> = table
            .over(VpnRange::ALL)
            .map(|l| l.facts.translation)
            .collect();
        drop(table);
        good.into_iter().for_each(visit);
    }
    /// Marks this thread as one that waits for memory, until the value is dropped, if it has leases
    /// itself.
    pub(super) fn asks(&self) -> Option<Asks<'_>> {
        let me = current().id();
        let mut table = self.table.lock();
        table.live.values().find(|lease| lease.thread == me)?;
        table.asking.push(me);
        drop(table);
        self.changed.notify_all();
        Some(Asks(self))
    }
    /// Waits for the leases of a range and revokes those that no window waits for. None is given
    /// while the returned value lives.
    pub(super) fn take_back(&self, range: VpnRange, event: Event) -> Closing<'_> {
        let (how, closing) = (self.config.on_window, self.close(range));
        if self.is_awaited(range, how) {
            let _asks = self.asks();
            let mut table = self.table.lock();
            while table.is_awaited(range, how) {
                self.changed.wait(&mut table);
            }
        }
        self.revoke(range, event);
        closing
    }
    /// Begins to take back the leases of a range if no wait is needed for it. The rest is to be
    /// [revoked](Self::revoke).
    pub(super) fn try_close(&self, range: VpnRange) -> Result<Closing<'_>, WouldBlock> {
        let closing = self.close(range);
        match self.is_awaited(range, self.config.on_window) {
            true => Err(WouldBlock),
            false => Ok(closing),
        }
    }
    fn close(&self, range: VpnRange) -> Closing<'_> {
        self.table.lock().closing.push(range);
        Closing(self, range)
    }
    fn is_awaited(&self, range: VpnRange, how: OnWindow) -> bool {
        !self.made(IommuMistake::IgnoresSlices) && self.table.lock().is_awaited(range, how)
    }
    /// Revokes the leases of a range.
    pub(super) fn revoke(&self, range: VpnRange, event: Event) {
        if !self.made(IommuMistake::IgnoresSlices) {
            for lease in self.table.lock().over(range) {
                lease.revoke(&self.mem, (range, event));
            }
        }
    }
    /// Returns the first misuse of a slice.
    pub(super) fn stale_use(&self) -> Option<StaleUse> {
        self.stale_use.get().copied()
    }
    /// Reports the misuse of a slice.
    ///
    /// # Panics
    ///
    /// If the IOMMU is strict.
    #[track_caller]
    pub(super) fn misused(&self, wrong: StaleUse) {
        self.stale_use.get_or_init(|| wrong);
        if wrong.window.is_none() {
            // The store may have gone to the zeros that other slices show.
            self.zeros.clear();
        }
        let strict = self.config.on_window == OnWindow::Strict;
        assert!(!strict, "{wrong}");
    }
}

/// A holder of a lease: an iterator, or a slice.
pub(super) struct Holder {
    leases: Arc<Leases>,
    lease: Arc<Lease>,
}

impl Holder {
    /// Makes a holder of a lease that is in the table, under the lock of the table.
    pub(super) fn new(leases: &Arc<Leases>, lease: &Arc<Lease>) -> Self {
        lease.add_holder();
        Self {
            leases: Arc::clone(leases),
            lease: Arc::clone(lease),
        }
    }
    pub(super) fn lease(&self) -> &Lease {
        &self.lease
    }
    pub(super) fn leases(&self) -> &Leases {
        &self.leases
    }
    /// Notes that the iterator is dropped that has this lease.
    pub(super) fn end_iteration(&self) {
        self.lease.iterated.store(false, SeqCst);
    }
    /// Notes a use of a slice.
    ///
    /// # Panics
    ///
    /// If the IOMMU is strict, and the slice was revoked or is not for this use.
    #[track_caller]
    pub(super) fn note_use(&self, used: SliceUse) {
        if let Some(wrong) = self.lease.misuse(used) {
            self.leases.misused(wrong);
        }
    }
}

impl Clone for Holder {
    fn clone(&self) -> Self {
        Self::new(&self.leases, &self.lease)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // Without holders the lease ends, unless the table gives it out once more before.
        if self.lease.remove_holder() {
            self.leases.end(&self.lease);
        }
    }
}

impl std::fmt::Debug for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "[{:#x}, +{:#x})",
            self.lease.facts.iova, self.lease.facts.len
        )
    }
}

/// The mark of a thread that waits for memory while it has leases.
pub(super) struct Asks<'l>(&'l Leases);

impl Drop for Asks<'_> {
    fn drop(&mut self) {
        let me = current().id();
        let mut table = self.0.table.lock();
        let mark = table.asking.iter().position(|thread| *thread == me);
        table.asking.swap_remove(mark.expect("marked by `asks`"));
    }
}

/// Pages of which no leases are given while this lives.
#[must_use]
pub(super) struct Closing<'l>(&'l Leases, VpnRange);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        let mut table = self.0.table.lock();
        let mark = table.closing.iter().position(|range| *range == self.1);
        table.closing.swap_remove(mark.expect("marked by `close`"));
    }
}
