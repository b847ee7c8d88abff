//! Last-level table pages: 512 entries, and the lock that guards every change of them.
//!
//! Entries are read with acquire and written with release: a walk without the lock that sees an
//! entry sees the initialized frame behind it.

use super::index::{ENTRIES, index};
use crate::{
    addr::{Vpn, VpnRange},
    mm::entry::pte::RawPte,
    sync::{self, AtomicBool, AtomicU64, Mutex, MutexGuard, Ordering},
};
use std::ptr;

/// Last-level table page: 512 entries and the lock that guards changes of them.
///
/// Aligned to cache lines, since the memory next to it may be the leaf of another thread.
#[repr(align(64))]
pub(in crate::mm) struct Leaf {
    ptes: [AtomicU64; ENTRIES],
    lock: Mutex<Sharers>,
    /// All 512 entries stand for one entry of the level above, which maps a huge page
    /// (`docs/adr/0006-a-huge-page-is-a-marked-leaf.md`). Changed under the lock.
    huge: AtomicBool,
}

/// How many tables have a leaf, and how far the counts of its frames know. Guarded by the lock of
/// the leaf.
pub(super) struct Sharers {
    /// Slots that the leaf is in.
    pub(super) tables: u32,
    /// How many of these slots the counts of the frames include. If not all: as many as when the
    /// counts were last settled, less the tables that left since.
    pub(super) counted: u32,
    /// The leaf was forked since the counts were settled: entries may still have rights, and frames
    /// be exclusive.
    pub(super) forked: bool,
}

impl Default for Sharers {
    fn default() -> Self {
        Self {
            tables: 1,
            counted: 1,
            forked: false,
        }
    }
}

impl Leaf {
    pub(super) fn new() -> Box<Self> {
        Box::new(Self {
            ptes: sync::zeros(),
            lock: Mutex::new(Sharers::default()),
            huge: AtomicBool::new(false),
        })
    }
    /// Takes the lock of the leaf. The leaf may be out of its table by then: the
    /// caller looks at the slot afterwards.
    pub(super) fn lock(&self) -> LockedLeaf<'_> {
        let held = self.lock.lock();
        LockedLeaf { leaf: self, held }
    }
    /// Takes the locks of two leaves in the order of their addresses, so that two callers cannot
    /// deadlock.
    pub(super) fn lock_pair<'l>(a: &'l Self, b: &'l Self) -> (LockedLeaf<'l>, LockedLeaf<'l>) {
        if ptr::from_ref(a) < ptr::from_ref(b) {
            let first = a.lock();
            (first, b.lock())
        } else {
            let second = b.lock();
            (a.lock(), second)
        }
    }
    /// Returns true if the leaf maps a huge page as one.
    #[inline]
    pub(super) fn is_huge(&self) -> bool {
        self.huge.load(Ordering::Acquire)
    }
    /// Reads one entry without the lock.
    #[inline]
    pub(super) fn peek(&self, at: Vpn) -> RawPte {
        RawPte(self.ptes[index(at)].load(Ordering::Acquire))
    }
    /// Reads each entry of `part` that is not empty, without the lock.
    #[inline]
    pub(super) fn peek_each(&self, part: VpnRange, mut visit: impl FnMut(Vpn, RawPte)) {
        let ptes = &self.ptes[index(part.start())..=index(Vpn(part.end().0 - 1))];
        let peek = |pte: &AtomicU64| pte.load(Ordering::Acquire);
        let mut at = part.start();
        // Most leaves have few entries: one test skips an empty cache line.
        for line in ptes.chunks(8) {
            if line.iter().fold(0, |any, pte| any | peek(pte)) != 0 {
                for (page, pte) in (at.0..).map(Vpn).zip(line) {
                    let pte = RawPte(peek(pte));
                    if !pte.is_none() {
                        visit(page, pte);
                    }
                }
            }
            at = at.plus(line.len() as u64);
        }
    }
}

/// A leaf with its lock held: the only way to change entries.
pub(in crate::mm) struct LockedLeaf<'l> {
    leaf: &'l Leaf,
    held: MutexGuard<'l, Sharers>,
}

impl LockedLeaf<'_> {
    /// Reads one entry. Relaxed, since the lock orders it after every change.
    pub(in crate::mm) fn get(&self, at: Vpn) -> RawPte {
        RawPte(self.leaf.ptes[index(at)].load(Ordering::Relaxed))
    }
    /// Writes one entry. Release, for walks without the lock.
    pub(in crate::mm) fn set(&self, at: Vpn, pte: RawPte) {
        self.leaf.ptes[index(at)].store(pte.0, Ordering::Release);
    }
    /// Copies the entries of `part` into an empty leaf: `f` maps each that is not empty to its new
    /// values here and there.
    #[inline]
    pub(in crate::mm) fn copy_to(
        &self,
        to: &LockedLeaf<'_>,
        part: VpnRange,
        f: impl FnMut(RawPte) -> (RawPte, RawPte),
    ) {
        self.copy_to_new(to.leaf, part, f);
    }
    /// Copies as [`copy_to`](Self::copy_to) does, into a leaf that no table has yet.
    #[inline]
    pub(super) fn copy_to_new(
        &self,
        to: &Leaf,
        part: VpnRange,
        mut f: impl FnMut(RawPte) -> (RawPte, RawPte),
    ) {
        let entries = index(part.start())..=index(Vpn(part.end().0 - 1));
        let pairs = self.leaf.ptes[entries.clone()]
            .iter()
            .zip(&to.ptes[entries]);
        for (from, to) in pairs {
            let old = RawPte(from.load(Ordering::Relaxed));
            if old.is_none() {
                continue;
            }
            let (here, there) = f(old);
            to.store(there.0, Ordering::Release);
            if here != old {
                from.store(here.0, Ordering::Release);
            }
        }
    }
    /// Clears the entries of `part` that `takes` selects; `f` gets each.
    #[inline]
    pub(in crate::mm) fn take_if(
        &self,
        part: VpnRange,
        takes: impl Fn(RawPte) -> bool,
        f: impl FnMut(RawPte),
    ) {
        self.replace_if(part, |pte| takes(pte).then_some(RawPte::NONE), f);
    }
    /// Replaces the entries of `part` that are not empty by what `leaves` returns, if it returns
    /// something; `f` gets each old entry.
    #[inline]
    pub(in crate::mm) fn replace_if(
        &self,
        part: VpnRange,
        leaves: impl Fn(RawPte) -> Option<RawPte>,
        mut f: impl FnMut(RawPte),
    ) {
        for entry in &self.leaf.ptes[index(part.start())..=index(Vpn(part.end().0 - 1))] {
            let old = RawPte(entry.load(Ordering::Relaxed));
            if !old.is_none()
                && let Some(left) = leaves(old)
            {
                entry.store(left.0, Ordering::Release);
                f(old);
            }
        }
    }
    /// Replaces each entry that is not empty by the value that `f` makes of it.
    #[inline]
    pub(super) fn change_all(&self, mut f: impl FnMut(RawPte) -> RawPte) {
        for entry in &self.leaf.ptes {
            let old = RawPte(entry.load(Ordering::Relaxed));
            if !old.is_none() {
                let new = f(old);
                if new != old {
                    entry.store(new.0, Ordering::Release);
                }
            }
        }
    }
    /// Returns true if the leaf maps a huge page as one.
    pub(in crate::mm) fn is_huge(&self) -> bool {
        self.leaf.is_huge()
    }
    /// Marks the leaf as mapping a huge page as one, or clears the mark.
    pub(in crate::mm) fn set_huge(&self, huge: bool) {
        self.leaf.huge.store(huge, Ordering::Release);
    }
    /// Returns true if no entry is left.
    pub(in crate::mm) fn is_empty(&self) -> bool {
        self.leaf
            .ptes
            .iter()
            .all(|p| p.load(Ordering::Relaxed) == 0)
    }
    /// How many tables share the leaf.
    pub(super) fn sharers(&mut self) -> &mut Sharers {
        &mut self.held
    }
}
