//! The entries of guest files' pages: a table of their own, beside the one for pages of the process
//! (as TDX has a mirror of its own for private pages), under a lock of its own.
//!
//! No notifier of an address space tells of these pages. They leave their file, or the guest frame
//! changes its kind, only inside of a [`GuestWindow`], which has the rules of the machine's own
//! account: it counts itself in, forbids the guest frames and removes their entries before
//! anything changes, and at its end advances the sequence before it counts itself out. An entry
//! goes in only by an [`Admitted`], for which a [`Stamp`] was checked under the lock.

use super::{
    account::Account,
    attributes::{PageKind, Stamp},
    gfn::Gfn,
    guest_entry::GuestEntry,
    tlbs::{KnownTlbs, SharedTlb},
};
use crate::{
    frame::PhysMem,
    sync::{AtomicU64, Mutex, MutexGuard, OnceLock, Ordering},
};
use std::{collections::BTreeMap, sync::Arc};

/// The entries, and the account of the windows over them.
#[derive(Debug, Default)]
pub(super) struct GuestEntries {
    held: Mutex<Held>,
    /// The number of windows that have ended. Written under the lock.
    seq: AtomicU64,
    /// The memory of the machine, from the first guest file on.
    mem: OnceLock<Arc<PhysMem>>,
}

#[derive(Debug, Default)]
struct Held {
    account: Account,
    entries: BTreeMap<Gfn, GuestEntry>,
    tlbs: KnownTlbs,
    /// The generation of the slots.
    slots: u64,
    /// The machine was unregistered.
    gone: bool,
}

/// The entries that a window removes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Zap {
    All,
    /// Those of guest frames that were of this kind (`kvm_gfn_range.attr_filter`).
    Kind(PageKind),
    /// None: a mistake.
    Nothing,
}

/// The reason for which a fault ends without an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotAdmitted {
    /// A window over the guest frame is open or has ended since the stamp, or slots have changed.
    Retry,
    /// The machine was unregistered.
    Gone,
}

impl GuestEntries {
    /// Notes that there is a guest file in this memory.
    pub(super) fn use_memory(&self, mem: &Arc<PhysMem>) {
        let _first = self.mem.set(Arc::clone(mem));
    }
    /// Returns the memory, if there was ever a guest file.
    pub(super) fn mem(&self) -> Option<&PhysMem> {
        self.mem.get().map(|mem| &**mem)
    }
    /// Returns the number of windows that have ended. Acquire pairs with the Release of an end.
    pub(super) fn sequence(&self) -> u64 {
        self.seq.load(Ordering::Acquire)
    }
    /// Returns the numbers of entries and of open windows.
    pub(super) fn counts(&self) -> (usize, u64) {
        let held = self.held.lock();
        (held.entries.len(), held.account.in_progress())
    }
    /// Returns all entries.
    pub(super) fn all(&self) -> Vec<GuestEntry> {
        self.held.lock().entries.values().copied().collect()
    }
    /// Enters the entry of a guest frame in a TLB, if there is one for the kind of the access, as
    /// the walk of a processor does.
    pub(super) fn walk(
        &self,
        (gfn, asked): (Gfn, Option<PageKind>),
        tlb: &SharedTlb,
        encrypted: bool,
    ) -> bool {
        let mut held = self.held.lock();
        let entry = held.entries.get(&gfn).copied();
        let Some(entry) = entry.filter(|e| asked.is_none_or(|kind| kind == e.kind)) else {
            return false;
        };
        held.tlbs.enter_guest(tlb, encrypted, entry);
        true
    }
    /// Checks that what a fault has found since its stamp still holds (`is_page_fault_stale`), and
    /// keeps it so while the result lives.
    pub(super) fn admit(&self, stamp: &Stamp, gfn: Gfn) -> Result<Admitted<'_>, NotAdmitted> {
        let held = self.held.lock();
        if held.gone {
            return Err(NotAdmitted::Gone);
        }
        let same = held.slots == stamp.slots && self.sequence() == stamp.guest;
        if !same || held.account.forbids(gfn) {
            return Err(NotAdmitted::Retry);
        }
        Ok(Admitted(held))
    }
    /// Does not check anything: the mistake that tests must find.
    pub(super) fn admit_unchecked(&self) -> Admitted<'_> {
        Admitted(self.held.lock())
    }
    /// Opens a window over guest frames, half-open ranges; it is none if there are no ranges.
    /// Returns after the entries have left table and TLBs.
    pub(super) fn window(&self, gfns: &[(Gfn, Gfn)], zap: Zap) -> GuestWindow<'_> {
        if gfns.is_empty() {
            return GuestWindow(None);
        }
        let mut held = self.held.lock();
        held.account.begin();
        for &(first, end) in gfns {
            held.account.forbid(first, end);
            held.remove(self.mem(), (first, end), zap);
        }
        GuestWindow(Some(self))
    }
    /// Notes that the slots have changed, and removes the entries of a slot.
    pub(super) fn replace_slots(&self, generation: u64, gone: Option<(Gfn, Gfn)>) {
        let mut held = self.held.lock();
        held.slots = generation;
        if let Some((first, end)) = gone {
            held.remove(self.mem(), (first, end), Zap::All);
        }
    }
    /// Removes all entries, and admits no more: the machine was unregistered.
    pub(super) fn release(&self) {
        let mut held = self.held.lock();
        held.gone = true;
        held.remove(self.mem(), (Gfn(0), Gfn(u64::MAX)), Zap::All);
    }
}

impl Held {
    /// Removes the entries of `[first, end)`, and flushes the TLBs.
    fn remove(&mut self, mem: Option<&PhysMem>, (first, end): (Gfn, Gfn), zap: Zap) {
        let goes = |e: &GuestEntry| match zap {
            Zap::All => true,
            Zap::Kind(kind) => e.kind == kind,
            Zap::Nothing => false,
        };
        let there = self.entries.range(first..end).map(|(_, e)| *e);
        let gone: Vec<GuestEntry> = there.filter(goes).collect();
        let Some(mem) = mem.filter(|_| !gone.is_empty()) else {
            return;
        };
        for entry in &gone {
            self.entries.remove(&entry.gfn);
        }
        self.tlbs.flush_guests(first, end);
        // After the flush: the guest stores no more.
        gone.iter().for_each(|entry| entry.pass_on_dirty(mem));
    }
}

/// The right to enter what a fault has found: the lock is held, so no window comes between.
#[must_use]
pub(super) struct Admitted<'e>(MutexGuard<'e, Held>);

impl Admitted<'_> {
    /// Puts an entry in the table and in a TLB.
    pub(super) fn establish(mut self, entry: GuestEntry, tlb: &SharedTlb, encrypted: bool) {
        self.0.entries.insert(entry.gfn, entry);
        self.0.tlbs.enter_guest(tlb, encrypted, entry);
    }
}

/// A window over guest frames: while it lives, the guest has no entry of a guest file's page there,
/// of the kind that it is for, and gets none.
#[must_use]
pub(super) struct GuestWindow<'e>(Option<&'e GuestEntries>);

impl Drop for GuestWindow<'_> {
    fn drop(&mut self) {
        if let Some(entries) = self.0 {
            let mut held = entries.held.lock();
            entries.seq.fetch_add(1, Ordering::Release);
            held.account.end();
        }
    }
}
