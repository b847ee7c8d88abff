//! A driver as most were written: translations of its own, a count of windows, a sequence, and no
//! help from a gate. The driver is sound, unless it has a [`Flaw`].

use crate::{
    addr::{PMD_PAGES, Vpn, VpnRange},
    ctx::{Atomic, CallCx},
    error::FaultError,
    mm::Mm,
    notifier::{Access, Cached, Event, Gate, NoStore, Pending, Seat},
    sync::Mutex,
    testkit::{Kit, device::Refused},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    thread::ThreadId,
    time::Duration,
};

/// The flaw of a specimen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the pieces of the museum say what each is")]
pub enum Flaw {
    // Windows.
    SingleRange,
    BoolWindow,
    ZeroSentinel,
    Unbalanced,
    DropAtEnd,
    OverflowAtAll,
    DeafToTheEnd,
    IgnoresCopies,
    OwnThreadOnly,
    OnlyMapped,
    LastBatch,
    OneOfHuge,
    WalkCache,
    SharedAsid,
    // Look-ups.
    NoRetry,
    CountOnly,
    SequenceOnly,
    ShortSequence,
    SignedSequence,
    LateSnapshot,
    LockHeld,
    GivesUp,
    BlindPreload,
    Unlocked,
    WrongStage,
    // Bits.
    RefusalsKept,
    LostDirty,
    NeverYoung,
    WrongPage,
    NoFlushAtAging,
    // Entries of other kinds.
    KeepsRights,
    WaitsInside,
    BeyondHuge,
}

/// Entries that one flush of a batching driver covers.
const BATCH: u64 = 4;

#[derive(Clone, Copy)]
pub(super) struct Entry {
    pub(super) cached: Cached,
    pub(super) accessed: bool,
    dirty: bool,
}

#[derive(Default)]
pub(super) struct Inner {
    pub(super) entries: BTreeMap<Vpn, Entry>,
    /// Windows that are open.
    pub(super) open: Vec<VpnRange>,
    sequence: u64,
    /// A short cut around the table, like a TLB.
    pub(super) hot: Option<Vpn>,
    refusals: BTreeSet<Vpn>,
    pub(super) released: bool,
}

/// A driver with at most one flaw; see the module.
pub(super) struct Specimen {
    pub(super) gate: Gate<NoStore, (), Atomic>,
    pub(super) inner: Arc<Mutex<Inner>>,
    pub(super) flaw: Option<Flaw>,
    faults: Mutex<()>,
    born: ThreadId,
}

/// Returns the kit of a specimen. The deadline is short for flaws that hang; for all others the
/// time proves nothing.
pub(super) fn specimen(flaw: Option<Flaw>) -> Kit {
    let asid = Arc::new(Mutex::new(Inner::default()));
    let kit = Kit::new(move |seat| Specimen::new(seat, flaw, &asid));
    match flaw {
        Some(Flaw::LockHeld | Flaw::WaitsInside | Flaw::SignedSequence | Flaw::Unbalanced) => {
            kit.deadline(Duration::from_millis(400))
        }
        _ => kit,
    }
}

impl Specimen {
    fn new(seat: Seat, flaw: Option<Flaw>, asid: &Arc<Mutex<Inner>>) -> Arc<Self> {
        let inner = if flaw == Some(Flaw::SharedAsid) {
            asid.lock().released = false;
            Arc::clone(asid)
        } else {
            Arc::default()
        };
        Arc::new(Self {
            gate: Gate::new(seat, NoStore, ()),
            inner,
            flaw,
            faults: Mutex::default(),
            born: std::thread::current().id(),
        })
    }
    pub(super) fn has(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }
    /// Tells whether callbacks and faults have a lock in common.
    fn locks_faults(&self) -> bool {
        self.has(Flaw::LockHeld) || self.has(Flaw::WaitsInside)
    }
    /// Returns the page of the frame that serves an access.
    pub(super) fn place_in(&self, entry: &Entry, addr: u64) -> Vpn {
        let (at, range) = (Vpn::containing(addr), entry.cached.range());
        match self.flaw {
            Some(Flaw::WrongStage) => range.start(),
            Some(Flaw::BeyondHuge) if !range.contains(at) => Vpn(at.0 - PMD_PAGES),
            _ => at,
        }
    }
    /// Handles the beginning of a window.
    pub(super) fn begin(&self, range: VpnRange, event: Event) {
        let _order = self.locks_faults().then(|| self.faults.lock());
        let mut inner = self.inner.lock();
        let mapped = inner.touches(range);
        let counted = match self.flaw {
            Some(Flaw::OnlyMapped | Flaw::Unbalanced) => mapped,
            Some(Flaw::ZeroSentinel) => range.start() != Vpn(0),
            _ => true,
        };
        if self.has(Flaw::SingleRange) || self.has(Flaw::BoolWindow) {
            inner.open.clear();
        }
        if counted {
            inner.open.push(range);
        }
        let left_alone = match self.flaw {
            Some(Flaw::DropAtEnd) => true,
            Some(Flaw::OverflowAtAll) => range.pages() > u64::from(u32::MAX),
            Some(Flaw::DeafToTheEnd) => range == VpnRange::ALL,
            Some(Flaw::KeepsRights) => event == Event::ProtectionVma,
            Some(Flaw::IgnoresCopies) => event == Event::Clear && range.pages() == 1,
            Some(Flaw::OwnThreadOnly) => std::thread::current().id() != self.born,
            Some(Flaw::ZeroSentinel) => range.start() == Vpn(0) && range.pages() == 1,
            Some(Flaw::SharedAsid) => range == VpnRange::ALL,
            _ => false,
        };
        if !left_alone {
            self.drop_range(&mut inner, range);
        }
    }
    /// Handles the end of a window: the sequence first, then the count.
    pub(super) fn end(&self, range: VpnRange) {
        let mut inner = self.inner.lock();
        inner.sequence += 1;
        if self.has(Flaw::DropAtEnd) {
            self.drop_range(&mut inner, range);
        }
        match self.flaw {
            // The flaw: a range without entries now counts as a range without entries at the
            // beginning.
            Some(Flaw::Unbalanced) if !inner.touches(range) => {}
            Some(Flaw::BoolWindow) => inner.open.clear(),
            _ => {
                let at = inner.open.iter().position(|r| *r == range);
                at.map(|at| inner.open.swap_remove(at));
            }
        }
    }
    fn drop_range(&self, inner: &mut Inner, range: VpnRange) {
        let from = match self.flaw {
            Some(Flaw::LastBatch) => {
                let batches = (range.pages() - 1) / BATCH;
                range.start().plus(batches * BATCH)
            }
            _ => range.start(),
        };
        let hit = |first: Vpn, e: &Entry| match self.flaw {
            Some(Flaw::OneOfHuge) => range.contains(first),
            // The table goes as a whole, but the walk cache keeps its entries.
            Some(Flaw::WalkCache) => {
                !(range.start().is_aligned(PMD_PAGES) && range.pages() >= PMD_PAGES)
                    && e.cached.range().overlaps(range)
            }
            _ => e.cached.range().overlaps(range) && e.cached.range().end() > from,
        };
        inner.entries.retain(|first, entry| {
            let gone = hit(*first, entry);
            if gone && entry.dirty && !self.has(Flaw::LostDirty) {
                self.pass_on_dirty(entry);
            }
            !gone
        });
        inner.hot = None;
        if !self.has(Flaw::RefusalsKept) {
            inner.refusals.retain(|at| !range.contains(*at));
        }
    }
    /// Marks the frame dirty.
    fn pass_on_dirty(&self, entry: &Entry) {
        let at = entry.cached.range().start();
        if let Some(mut view) = self.gate.follow_mut(&entry.cached, at) {
            let mut byte = [0];
            view.as_view().read(0, &mut byte);
            view.write(0, &byte);
        }
    }
    /// Looks up and enters a translation.
    fn fault(&self, cx: &mut CallCx<'_>, mm: &Mm, at: Vpn, access: Access) -> Result<(), Refused> {
        let mut tries = 0;
        loop {
            let _order = self.locks_faults().then(|| self.faults.lock());
            let early = self.snapshot()?;
            let ticket = self.gate.ticket(at, access).allow_huge();
            let found = mm.resolve(cx, ticket);
            if self.has(Flaw::WaitsInside)
                && let Err(FaultError::Userfault(addr)) = found
            {
                drop(found);
                mm.wait_for_answer(cx, addr);
                continue;
            }
            if let Err(FaultError::Denied(_)) = found {
                self.inner.lock().refusals.insert(at);
            }
            // A window that is open and did not call the device: it tries again.
            let cached = found?.vouch().ok();
            let snapshot = match self.flaw {
                Some(Flaw::LateSnapshot) => self.snapshot()?,
                _ => early,
            };
            if cached.is_some_and(|cached| self.enter(at, cached, snapshot)) {
                if self.has(Flaw::BlindPreload) {
                    self.preload(cx, mm, at);
                }
                return Ok(());
            }
            tries += 1;
            if self.has(Flaw::GivesUp) && tries >= 3 {
                return Err(Refused::Other("too many retries (-EBUSY)".into()));
            }
            std::thread::yield_now();
        }
    }
    fn snapshot(&self) -> Result<u64, Refused> {
        let inner = self.inner.lock();
        if inner.released {
            return Err(Refused::Gone);
        }
        Ok(inner.sequence)
    }
    /// Enters a translation after a look-up; returns false if a window overtook the look-up.
    fn enter(&self, at: Vpn, cached: Cached, snapshot: u64) -> bool {
        let mut inner = self.inner.lock();
        let open = inner.open.iter().any(|r| r.overlaps(cached.range()));
        let moved = match self.flaw {
            Some(Flaw::ShortSequence) => (inner.sequence ^ snapshot) & 0xff != 0,
            // As an unsigned number, a negative sequence is large.
            Some(Flaw::SignedSequence) => {
                let narrow = i8::from_ne_bytes([inner.sequence.to_le_bytes()[0]]);
                i64::try_from(snapshot & 0xff).is_ok_and(|s| s != i64::from(narrow))
                    || inner.sequence != snapshot
            }
            _ => inner.sequence != snapshot,
        };
        let again = match self.flaw {
            Some(Flaw::NoRetry) => false,
            Some(Flaw::CountOnly) => open,
            Some(Flaw::SequenceOnly) => moved,
            _ => open || moved,
        };
        if again || inner.released {
            return false;
        }
        let range = cached.range();
        inner
            .entries
            .retain(|_, e| !e.cached.range().overlaps(range));
        let key = if self.has(Flaw::WrongStage) {
            at.align_down(2)
        } else {
            range.start()
        };
        let entry = Entry {
            cached,
            accessed: true,
            dirty: false,
        };
        inner.entries.insert(key, entry);
        true
    }
    /// Looks up the following pages, without a request for them.
    fn preload(&self, cx: &mut CallCx<'_>, mm: &Mm, at: Vpn) {
        for n in 1..=2 {
            let next = at.plus(n);
            let ticket = self.gate.ticket(next, Access::Read);
            let pending = mm.try_resolve(cx, ticket).ok().flatten();
            if let Some(Ok(cached)) = pending.map(Pending::vouch) {
                let entry = Entry {
                    cached,
                    accessed: false,
                    dirty: false,
                };
                self.inner.lock().entries.entry(next).or_insert(entry);
            }
        }
    }
    pub(super) fn use_page<T>(
        &self,
        cx: &mut CallCx<'_>,
        mm: &Mm,
        addr: u64,
        access: Access,
        f: impl Fn(&Entry) -> Option<T>,
    ) -> Result<T, Refused> {
        let at = Vpn::containing(addr);
        loop {
            let mut inner = self.inner.lock();
            if inner.released {
                return Err(Refused::Gone);
            }
            if inner.refusals.contains(&at) && access == Access::Write {
                return Err(FaultError::Denied(addr).into());
            }
            let entry = inner.use_entry(at, access, self.flaw);
            let held = if self.has(Flaw::Unlocked) {
                drop(inner);
                None
            } else {
                Some(inner)
            };
            if let Some(done) = entry.and_then(|e| f(&e)) {
                return Ok(done);
            }
            drop(held);
            self.fault(cx, mm, at, access)?;
        }
    }
}

impl Inner {
    fn touches(&self, range: VpnRange) -> bool {
        let mut all = self.entries.values();
        all.any(|e| e.cached.range().overlaps(range))
    }
    /// The entry of a page, with the bits of an access.
    fn use_entry(&mut self, at: Vpn, access: Access, flaw: Option<Flaw>) -> Option<Entry> {
        let hot = self.hot == Some(at);
        let entry = self.find(at, flaw)?;
        // The TLB's entry serves the access without a look at the table.
        entry.accessed |= !hot;
        entry.dirty |= access == Access::Write && entry.cached.is_writable();
        let entry = *entry;
        self.hot = Some(at);
        Some(entry)
    }
    fn find(&mut self, at: Vpn, flaw: Option<Flaw>) -> Option<&mut Entry> {
        if flaw == Some(Flaw::WrongStage) {
            return self.entries.get_mut(&at.align_down(2));
        }
        let near = self.entries.range_mut(..=at).next_back();
        near.map(|(_, e)| e).filter(|e| {
            let range = e.cached.range();
            let next = flaw == Some(Flaw::BeyondHuge) && range.pages() == PMD_PAGES;
            range.contains(at) || (next && range.contains(Vpn(at.0 - PMD_PAGES)))
        })
    }
}
