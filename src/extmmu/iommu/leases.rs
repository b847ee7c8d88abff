//! The leases of one IOMMU: a window waits for them, or revokes them.
//!
//! Guarantee: when [`take_back`](Leases::take_back) returns, no lease of a page in the range is
//! good, and none is given while the returned value lives. Its holder removes the range from the
//! IOTLB meanwhile, under the gate. So the last access through a slice comes before the entry gives
//! up its frame.
//!
//! How: a lease is a count in the word of its page's [slot](super::slots), which says how a device
//! that takes or ends one meets a window that closes the slot. A slot is filled with the gate
//! locked and the page in the IOTLB, under the lock of the table; a window notes its range there
//! before it looks for slots. So a slot that is filled before is closed, and none is filled after.
//!
//! The lock is a leaf of the lock order. A lease that no window is about takes it only when its
//! page has no slot yet.

use super::{
    config::{IommuConfig, IommuMistake, OnWindow},
    kept::Kept,
    lease::{Lease, Part},
    own_leases::own,
    slots::{SlotId, Slots, TABLE, Taken},
    stale_use::{SliceUse, StaleUse},
    table::{Occupied, Revoked, Table},
};
use crate::{
    addr::{Vpn, VpnRange},
    extmmu::{dirty_pages::DirtyPages, vm_memory::Zeros},
    frame::{FrameFlags, PhysMem},
    notifier::{Access, Event, Translation, WouldBlock},
    sync::{Condvar, IdSource, Mutex, OnceLock},
};
use smallvec::SmallVec;
use std::{cell::Cell, rc::Rc, sync::Arc};

static NEXT: IdSource = IdSource::starting_at(1);

/// The leases of one IOMMU.
pub(super) struct Leases {
    /// No other IOMMU of the program has it.
    number: u64,
    mem: Arc<PhysMem>,
    config: IommuConfig,
    pub(super) slots: Slots,
    pub(super) table: Mutex<Table>,
    /// A lease has ended, or a thread waits for memory.
    changed: Condvar,
    stale_use: OnceLock<StaleUse>,
    /// Shown in place of the zero page, which all processes have.
    pub(super) zeros: Box<Zeros>,
    pub(super) dirty: DirtyPages,
}

/// Counted leases that are not a thread's yet.
type Counted = SmallVec<[SlotId; 4]>;
/// Leases of one request.
pub(super) type Given = SmallVec<[Rc<Lease>; 4]>;

impl Leases {
    pub(super) fn new(mem: &Arc<PhysMem>, config: IommuConfig) -> Arc<Self> {
        Arc::new(Self {
            number: NEXT.next(),
            mem: Arc::clone(mem),
            config,
            slots: Slots::new(),
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
        let table = self.table.lock();
        let leases = table.all().map(|(id, _)| self.slots.at(id).word().leases());
        leases.sum()
    }
    /// Takes leases for an iterator that is about to begin, without a lock, all of them good at one
    /// moment. Returns `None`, and takes none, if a page has no slot with this right.
    #[inline]
    pub(super) fn take(&self, parts: &[Part], access: Access, right: Access) -> Option<Given> {
        let write = right == Access::Write;
        let awaited = own(|own| !own.asks(self.number))?;
        let mut counted = Counted::new();
        for part in parts {
            let stray = match self.slots.take(part.page, write, awaited) {
                Taken::Lease(id) => {
                    counted.push(id);
                    continue;
                }
                Taken::OfAnotherPage(id) => Some(id),
                Taken::None => None,
            };
            for id in counted.into_iter().chain(stray) {
                self.count_out(id, awaited);
            }
            return None;
        }
        if write {
            self.mark_dirty(&counted);
        }
        self.begin(parts, &counted, (access, awaited))
    }
    /// Marks frames that a device is about to write, as the gate does when it looks a page up.
    fn mark_dirty(&self, counted: &[SlotId]) {
        for id in counted {
            let pfn = self.slots.at(*id).pfn();
            if !pfn.is_zero() {
                self.mem.set_flags(pfn, FrameFlags::DIRTY);
            }
        }
    }
    /// Gives leases to an iterator that is about to begin. The gate of the IOTLB is locked, and has
    /// these translations, and addresses of the first bytes of their pages.
    ///
    /// # Errors
    ///
    /// A page of which none is given now.
    pub(super) fn give(
        &self,
        parts: &[Part],
        found: &[(Translation, *mut u8)],
        (access, right): (Access, Access),
    ) -> Result<Option<Given>, Vpn> {
        let Some(awaited) = own(|own| !own.asks(self.number)) else {
            return Ok(None);
        };
        let mut table = self.table.lock();
        if let Some(closing) = parts.iter().find(|part| table.closes(part.page)) {
            return Err(closing.page);
        }
        let how = (right == Access::Write, awaited);
        let counted: Counted = found
            .iter()
            .map(|found| table.take(&self.slots, *found, how))
            .collect();
        drop(table);
        Ok(self.begin(parts, &counted, (access, awaited)))
    }
    /// Makes counted leases leases of this thread. Returns `None`, and ends them, if it ends.
    #[inline]
    pub(super) fn begin(
        &self,
        parts: &[Part],
        counted: &[SlotId],
        (access, awaited): (Access, bool),
    ) -> Option<Given> {
        let given = own(|own| {
            let leases = parts.iter().zip(counted).map(|(part, slot)| {
                let first = self.slots.at(*slot).address();
                own.add(|seat, number| Lease {
                    seat,
                    number,
                    of: self.number,
                    slot: *slot,
                    part: *part,
                    access,
                    address: first.wrapping_add(part.offset),
                    awaited: Cell::new(awaited),
                    iterated: Cell::new(true),
                })
            });
            leases.collect()
        });
        if given.is_none() {
            for id in counted {
                self.count_out(*id, awaited);
            }
        }
        given
    }
    /// Ends a lease: its last holder is gone.
    #[inline]
    pub(super) fn end(&self, lease: &Lease) {
        own(|own| own.remove(lease));
        self.count_out(lease.slot, lease.awaited.get());
    }
    #[inline]
    fn count_out(&self, id: SlotId, awaited: bool) {
        if self.slots.at(id).count_out(awaited) || id >= TABLE {
            self.settle(id);
        }
    }
    #[cold]
    fn settle(&self, id: SlotId) {
        let mut table = self.table.lock();
        let settled = table.settle(&self.slots, id);
        drop(table);
        self.changed.notify_all();
        drop(settled);
    }
    /// Notes that the iterator is dropped that has a lease, and slices of it are not.
    pub(super) fn end_iteration(&self, lease: &Lease) {
        lease.iterated.set(false);
        let ends = self.config.on_window != OnWindow::Wait && lease.awaited.replace(false);
        if ends && self.slots.at(lease.slot).count_unawaited() {
            // A window that has looked before is asleep now.
            drop(self.table.lock());
            self.changed.notify_all();
        }
    }
    /// Returns the lease on a seat of this thread, of which a slice is about to be made.
    #[inline]
    pub(super) fn for_slice(&self, seat: usize) -> Option<Rc<Lease>> {
        own(|own| own.for_slice(self.number, seat)).flatten()
    }
    /// Returns the lease of the byte at an I/O address that this thread has: that of the slice made
    /// last, or else the latest.
    #[inline]
    pub(super) fn at(&self, iova: u64) -> Option<Rc<Lease>> {
        own(|own| own.at(self.number, iova)).flatten()
    }
    /// Shows the translations that devices have, or may take.
    pub(super) fn for_each(&self, visit: &mut dyn FnMut(Translation)) {
        let table = self.table.lock();
        let good = table.all().filter(|(_, slot)| slot.revoked.is_none());
        let good: Vec<_> = good.map(|(_, slot)| slot.translation).collect();
        drop(table);
        good.into_iter().for_each(visit);
    }
    /// Notes that this thread waits for memory, until the value is dropped, if it has leases
    /// itself: windows do not wait for them meanwhile.
    pub(super) fn asks(&self) -> Option<Asks<'_>> {
        let leases = own(|own| own.begin_to_ask(self.number)).flatten()?;
        let table = self.table.lock();
        for lease in leases {
            if lease.awaited.replace(false) {
                self.slots.at(lease.slot).count_unawaited();
            }
        }
        drop(table);
        self.changed.notify_all();
        Some(Asks(self))
    }
    /// Waits for the leases of a range and revokes those that no window waits for. None is given
    /// while the returned value lives.
    pub(super) fn take_back(&self, range: VpnRange, event: Event) -> Closing<'_> {
        let closing = self.close(range);
        let (mut table, mut asks) = (self.table.lock(), None);
        if self.is_awaited(&table, range) {
            drop(table);
            // Also the leases of this thread itself, which it would wait for.
            asks = self.asks();
            table = self.table.lock();
            while self.is_awaited(&table, range) {
                self.changed.wait(&mut table);
            }
        }
        let settled = self.revoke_in(&mut table, (range, event));
        drop(table);
        // After the lock; the thread's own leases are revoked before windows wait for them again.
        drop((settled, asks));
        closing
    }
    /// Begins to take back the leases of a range if no wait is needed for it. The rest is to be
    /// [revoked](Self::revoke).
    pub(super) fn try_close(&self, range: VpnRange) -> Result<Closing<'_>, WouldBlock> {
        let closing = self.close(range);
        let is_awaited = || self.is_awaited(&self.table.lock(), range);
        if is_awaited() {
            let _asks = self.asks();
            if is_awaited() {
                return Err(WouldBlock);
            }
        }
        Ok(closing)
    }
    fn close(&self, range: VpnRange) -> Closing<'_> {
        self.table.lock().close(&self.slots, range);
        Closing(self, range)
    }
    /// Returns true if a window over the closed slots of a range has to wait.
    fn is_awaited(&self, table: &Table, range: VpnRange) -> bool {
        let mut words = table.over(range).map(|(id, _)| self.slots.at(id).word());
        !self.made(IommuMistake::IgnoresSlices)
            && words.any(|word| word.is_awaited() && !word.is_revoked())
    }
    /// Revokes the leases of a range that is closed.
    pub(super) fn revoke(&self, range: VpnRange, event: Event) {
        let settled = self.revoke_in(&mut self.table.lock(), (range, event));
        drop(settled);
    }
    fn revoke_in(&self, table: &mut Table, window: (VpnRange, Event)) -> Vec<Occupied> {
        let ignores = self.made(IommuMistake::IgnoresSlices);
        table.revoke(&self.slots, window.0, |translation| {
            (!ignores).then(|| Revoked {
                window,
                _kept: Kept::hold(&self.mem, translation.pfn()),
            })
        })
    }
    /// Notes a use of a slice.
    ///
    /// # Panics
    ///
    /// If the IOMMU is strict, and the slice was revoked or is not for this use.
    #[track_caller]
    #[inline]
    pub(super) fn note_use(&self, lease: &Lease, used: SliceUse) {
        let stores = matches!(used, SliceUse::Store { .. });
        let unasked = stores && lease.access == Access::Read;
        if unasked || self.slots.at(lease.slot).word().is_revoked() {
            self.note_misuse(lease, used, unasked);
        }
    }
    #[cold]
    #[track_caller]
    fn note_misuse(&self, lease: &Lease, used: SliceUse, unasked: bool) {
        let table = self.table.lock();
        let revoked = table.get(lease.part.page, lease.slot);
        let revoked = revoked.and_then(|slot| slot.revoked.as_ref());
        let window = revoked.map(|revoked| revoked.window);
        drop(table);
        // Windows of an IOMMU that ignores slices leave no trace.
        if unasked || window.is_some() {
            self.misused(StaleUse {
                iova: lease.part.iova,
                len: lease.part.len,
                access: lease.access,
                used,
                window,
            });
        }
    }
    /// Returns the first misuse of a slice.
    pub(super) fn stale_use(&self) -> Option<StaleUse> {
        self.stale_use.get().copied()
    }
    #[track_caller]
    fn misused(&self, wrong: StaleUse) {
        self.stale_use.get_or_init(|| wrong);
        if wrong.window.is_none() {
            // The store may have gone to the zeros that other slices show.
            self.zeros.clear();
        }
        let strict = self.config.on_window == OnWindow::Strict;
        assert!(!strict, "{wrong}");
    }
}

/// The mark of a thread that waits for memory while it has leases. It is dropped on that thread.
pub(super) struct Asks<'l>(&'l Leases);

impl Drop for Asks<'_> {
    fn drop(&mut self) {
        let leases = own(|own| own.end_asking(self.0.number));
        let table = self.0.table.lock();
        for lease in leases.into_iter().flatten() {
            let counts = self.0.config.on_window == OnWindow::Wait || lease.iterated.get();
            if counts && !lease.awaited.replace(true) {
                self.0.slots.at(lease.slot).count_awaited();
            }
        }
        drop(table);
    }
}

/// Pages of which no leases are given while this lives.
#[must_use]
pub(super) struct Closing<'l>(&'l Leases, VpnRange);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.table.lock().open(&self.0.slots, self.1);
    }
}
