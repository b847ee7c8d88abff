//! How a fault reads an entry, makes its table, and puts a frame in.
//!
//! An entry is decided about without its lock, and changed under the lock of its leaf only if it is
//! still the one that was seen. A leaf can be taken out of the table between its look-up and its
//! lock (a large `MADV_DONTNEED` frees empty leaves): then the walk begins anew.

use super::scope::FaultScope;
use crate::mm::{
    entry::pte::RawPte,
    page_table::{LeafAt, LockedLeaf},
    space::Mm,
};
use crate::{
    addr::Vpn,
    ctx::FaultCx,
    error::NoMemory,
    frame::{Frame, FrameFlags},
};

/// An entry as a fault sees it without its lock.
#[derive(Clone, Copy)]
pub(super) struct Seen {
    pub(super) pte: RawPte,
    pub(super) has_leaf: bool,
    /// The entry is present and part of a huge page.
    pub(super) is_huge: bool,
}

impl Seen {
    const NOTHING: Self = Self {
        pte: RawPte::NONE,
        has_leaf: false,
        is_huge: false,
    };

    #[inline]
    fn of(leaf: LeafAt<'_>, at: Vpn) -> Self {
        let pte = leaf.peek(at);
        Self {
            pte,
            has_leaf: true,
            is_huge: pte.is_present() && leaf.is_huge(),
        }
    }
}

impl FaultScope<'_> {
    /// Reads the entry of `at`, without its lock. Makes the upper tables, which stay behind even
    /// if the fault fails.
    pub(in crate::mm) fn look(&mut self, at: Vpn) -> Result<RawPte, NoMemory> {
        Ok(self.look_at_leaf(at)?.pte)
    }
    /// Reads the entry as [`look`](Self::look) does, and what is known of its leaf.
    pub(super) fn look_at_leaf(&mut self, at: Vpn) -> Result<Seen, NoMemory> {
        let mm = self.lease.mm;
        let view = mm.table.view(&mut self.lease.cx);
        if let Some(leaf) = view.leaf(at) {
            return Ok(Seen::of(leaf, at));
        }
        mm.table.make_pmd(at, view.pin())?;
        let leaf = view.leaf(at);
        Ok(leaf.map_or(Seen::NOTHING, |leaf| Seen::of(leaf, at)))
    }
    /// Returns true if `at` has a leaf.
    pub(super) fn has_leaf(&mut self, at: Vpn) -> bool {
        let mm = self.lease.mm;
        let view = mm.table.view(&mut self.lease.cx);
        view.leaf(at).is_some()
    }
    /// Makes the leaf of `at` and runs `f` under its lock.
    pub(in crate::mm) fn with_leaf<T>(
        &mut self,
        at: Vpn,
        f: impl FnOnce(&LockedLeaf<'_>) -> T,
    ) -> Result<T, NoMemory> {
        with_leaf(self.lease.mm, &mut self.lease.cx, at, f)
    }
    /// Puts a frame into the entry of `at` if that is still vacant; else gives the frame back. The
    /// page has the mark of write protection if a marker was there.
    pub(super) fn install(
        &mut self,
        at: Vpn,
        frame: Frame<'_>,
        pte: RawPte,
    ) -> Result<(), NoMemory> {
        let mem = self.lease.mm.machine().mem();
        self.with_leaf(at, |leaf| {
            let old = leaf.get(at);
            if old.is_vacant() {
                let pfn = frame.into_raw();
                mem.map_inc(pfn);
                leaf.set(at, pte.in_place_of(old));
                // An object's page is on a list already.
                if mem.flags(pfn).contains(FrameFlags::ANON) {
                    mem.lru_add(pfn);
                }
            }
        })
    }
}

/// Makes the leaf of `at` and runs `f` under its lock.
pub(in crate::mm) fn with_leaf<T>(
    mm: &Mm,
    cx: &mut FaultCx<'_>,
    at: Vpn,
    f: impl FnOnce(&LockedLeaf<'_>) -> T,
) -> Result<T, NoMemory> {
    loop {
        let view = mm.table.view(cx);
        let leaf = view.make_leaf(at)?;
        // A large MADV_DONTNEED took the leaf out meanwhile: walk again.
        if let Some(locked) = leaf.try_lock()? {
            return Ok(f(&locked));
        }
    }
}
