//! Last-level table pages: the entries, and the lock that guards changes of them.

use super::{node::ENTRIES, share::Sharers};
use crate::{
    addr::{Vpn, VpnRange},
    mm::entry::pte::RawPte,
    sync::{self, AtomicBool, AtomicU64, Mutex, MutexGuard, Ordering},
};
use std::ptr;

/// Last-level table page: 512 entries and the lock that guards changes of them. Whole lines of memory: what lies beside it may
/// be another thread's leaf.
#[repr(align(64))]
pub(in crate::mm) struct Leaf {
    ptes: [AtomicU64; ENTRIES],
    lock: Mutex<Sharers>,
    /// The entries stand for one of the level above: a huge page, mapped whole. Changed under the lock.
    huge: AtomicBool,
}

impl Leaf {
    pub(super) fn new() -> Box<Self> {
        Box::new(Self {
            ptes: sync::zeros(),
            lock: Mutex::new(Sharers::default()),
            huge: AtomicBool::new(false),
        })
    }
    /// The page-table lock of these 2 MiB, whatever table they are of by now.
    pub(super) fn lock(&self) -> LockedLeaf<'_> {
        let held = self.lock.lock();
        LockedLeaf { leaf: self, held }
    }
    /// Two leaves' locks, in an order that cannot deadlock.
    pub(super) fn lock_pair<'l>(a: &'l Self, b: &'l Self) -> (LockedLeaf<'l>, LockedLeaf<'l>) {
        if ptr::from_ref(a) < ptr::from_ref(b) {
            let first = a.lock();
            (first, b.lock())
        } else {
            let second = b.lock();
            (a.lock(), second)
        }
    }
    /// Whether it maps a huge page as one.
    #[inline]
    pub(super) fn is_huge(&self) -> bool {
        self.huge.load(Ordering::Acquire)
    }
    /// Reads one entry without the lock.
    #[inline]
    pub(super) fn peek(&self, at: Vpn) -> RawPte {
        RawPte(self.ptes[index(at)].load(Ordering::Acquire))
    }
    /// The same for each entry of `part` that there is.
    #[inline]
    pub(super) fn peek_each(&self, part: VpnRange, mut visit: impl FnMut(Vpn, RawPte)) {
        let ptes = &self.ptes[index(part.start())..=index(Vpn(part.end().0 - 1))];
        let peek = |pte: &AtomicU64| pte.load(Ordering::Acquire);
        let mut at = part.start();
        // Most leaves have few entries: a line of memory is looked at as one.
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

/// A leaf with its lock held.
pub(in crate::mm) struct LockedLeaf<'l> {
    leaf: &'l Leaf,
    held: MutexGuard<'l, Sharers>,
}

impl LockedLeaf<'_> {
    pub(in crate::mm) fn get(&self, at: Vpn) -> RawPte {
        RawPte(self.leaf.ptes[index(at)].load(Ordering::Relaxed))
    }
    pub(in crate::mm) fn set(&self, at: Vpn, pte: RawPte) {
        self.leaf.ptes[index(at)].store(pte.0, Ordering::Release);
    }
    /// Copies the entries of `part` into an empty leaf: of each that there is `f` says what it is from now on, here and
    /// there.
    #[inline]
    pub(in crate::mm) fn copy_to(
        &self,
        to: &LockedLeaf<'_>,
        part: VpnRange,
        f: impl FnMut(RawPte) -> (RawPte, RawPte),
    ) {
        self.copy_to_new(to.leaf, part, f);
    }
    /// The same into one that nobody else knows.
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
    /// Clears those entries of `part` of which `takes` says so; `f` gets each.
    #[inline]
    pub(in crate::mm) fn take_if(
        &self,
        part: VpnRange,
        takes: impl Fn(RawPte) -> bool,
        mut f: impl FnMut(RawPte),
    ) {
        for entry in &self.leaf.ptes[index(part.start())..=index(Vpn(part.end().0 - 1))] {
            let old = RawPte(entry.load(Ordering::Relaxed));
            if !old.is_none() && takes(old) {
                entry.store(RawPte::NONE.0, Ordering::Release);
                f(old);
            }
        }
    }
    /// Gives `f` each entry that there is; what it says takes the place.
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
    pub(in crate::mm) fn is_huge(&self) -> bool {
        self.leaf.is_huge()
    }
    pub(in crate::mm) fn set_huge(&self, huge: bool) {
        self.leaf.huge.store(huge, Ordering::Release);
    }
    pub(in crate::mm) fn is_empty(&self) -> bool {
        self.leaf
            .ptes
            .iter()
            .all(|p| p.load(Ordering::Relaxed) == 0)
    }
    /// Who shares the leaf.
    pub(super) fn sharers(&mut self) -> &mut Sharers {
        &mut self.held
    }
}

#[inline]
#[allow(clippy::cast_possible_truncation)]
const fn index(at: Vpn) -> usize {
    at.0 as usize & (ENTRIES - 1)
}
