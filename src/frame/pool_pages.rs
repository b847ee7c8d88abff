//! Huge pages of a pool: reserving, taking and giving back (`mm/hugetlb.c`).
//!
//! A page in use is 512 frames in a row, or as many as a larger size has, each with references of
//! its own, like any huge page. When the last frame has lost its last reference, the page returns
//! to its pool, whatever dropped it.

use super::{
    flags::FrameFlags,
    huge_pool::{HugePool, HugeSize, InUse, Pool, signed},
    inject::AllocKind,
    large_page::Large,
    mem::PhysMem,
    owner::Owner,
    resv_map::ResvMap,
};
use crate::{
    addr::{PAGE_SIZE, Pfn},
    sync::{MutexGuard, Ordering},
};
use std::{fmt, sync::Arc};

/// The use of a reservation by a page that is taken.
#[derive(Clone, Debug)]
pub(crate) enum Claim {
    /// None: only a page that is not promised.
    None,
    /// Of a file's page: the map of the file, and the index.
    File(Arc<ResvMap>, u64),
    /// Of a page of a private mapping: the map of the mapping, and the index.
    Mapping(Arc<ResvMap>, u64),
    /// None, for the copy of such a page: the mapping's reservation was used up by the original.
    Copy(Arc<ResvMap>, u64),
}

/// A page that was taken and is not in place yet. Dropping it gives it back, and its reservation.
pub(crate) struct PoolPage {
    mem: Arc<PhysMem>,
    size: HugeSize,
    head: Pfn,
    claim: Claim,
    reserved: bool,
    kept: bool,
}

impl PhysMem {
    /// Returns the counts of the pool of a size.
    pub fn huge_pool(&self, size: HugeSize) -> HugePool {
        self.pools.of(size).lock().counts()
    }
    /// Sets the number of pages of a pool, as far as memory allows, and returns the number without
    /// surplus pages (`set_max_huge_pages`). Pages in use and reserved ones stay, as surplus pages
    /// if they must.
    pub fn set_huge_pages(&self, size: HugeSize, pages: u64) -> u64 {
        let mut pool = self.pools.of(size).lock();
        let kept = |pool: &Pool| pool.total() - pool.surplus;
        while pool.surplus > 0 && kept(&pool) < pages {
            pool.surplus -= 1;
        }
        while kept(&pool) < pages
            && let Some(head) = self.free.take_block(size.frames())
        {
            pool.free.push(head.0);
        }
        let least = signed(pool.total()) - pool.available();
        let least = u64::try_from(least).unwrap_or(0).max(pages);
        while kept(&pool) > least
            && let Some(head) = pool.free.pop()
        {
            self.free.put_block(Pfn(head), size.frames());
        }
        while kept(&pool) > pages {
            pool.surplus += 1;
        }
        kept(&pool)
    }
    /// Sets the most surplus pages of a pool; those that exist stay.
    pub fn set_huge_overcommit(&self, size: HugeSize, pages: u64) {
        self.pools.of(size).lock().overcommit = pages;
    }
    /// Promises `pages` of a pool, for which surplus pages come in. Returns false, and promises
    /// nothing, if there are too few (`hugetlb_acct_memory`, `gather_surplus_pages`).
    pub(crate) fn reserve_huge(&self, size: HugeSize, pages: u64) -> bool {
        let mut pool = self.pools.of(size).lock();
        let before = pool.surplus;
        while pool.available() < signed(pages) {
            let Some(head) = self.new_surplus(&mut pool, size) else {
                let gathered = pool.surplus - before;
                self.drop_surplus(&mut pool, size, gathered);
                return false;
            };
            pool.free.push(head.0);
        }
        pool.reserved += signed(pages);
        true
    }
    /// Takes a promise back, and with it as many free surplus pages
    /// (`return_unused_surplus_pages`).
    pub(crate) fn unreserve_huge(&self, size: HugeSize, pages: u64) {
        let mut pool = self.pools.of(size).lock();
        pool.reserved -= signed(pages);
        let surplus = pages.min(pool.surplus);
        self.drop_surplus(&mut pool, size, surplus);
    }
    /// Adds a surplus page, which the caller puts in its place (`alloc_surplus_hugetlb_folio`).
    fn new_surplus(&self, pool: &mut MutexGuard<'_, Pool>, size: HugeSize) -> Option<Pfn> {
        if pool.surplus >= pool.overcommit {
            return None;
        }
        let head = self.free.take_block(size.frames())?;
        pool.surplus += 1;
        Some(head)
    }
    fn drop_surplus(&self, pool: &mut MutexGuard<'_, Pool>, size: HugeSize, pages: u64) {
        for _ in 0..pages {
            let Some(head) = pool.free.pop() else {
                return;
            };
            pool.surplus -= 1;
            self.free.put_block(Pfn(head), size.frames());
        }
    }
    /// Takes a page out of a pool, all zero, with one reference on each frame
    /// (`alloc_hugetlb_folio`). `None` if only promised pages are left, and this one was not.
    pub(crate) fn take_huge(self: &Arc<Self>, size: HugeSize, claim: Claim) -> Option<PoolPage> {
        self.inject().check(AllocKind::Frame).ok()?;
        let reserved = claim.is_reserved();
        let mut pool = self.pools.of(size).lock();
        let free = match reserved || pool.available() != 0 {
            true => pool.free.pop().map(Pfn),
            false => None,
        };
        let head = match free {
            Some(head) => head,
            None => self.new_surplus(&mut pool, size)?,
        };
        pool.reserved -= i64::from(reserved);
        let page = InUse {
            frames: size.frames(),
            restores: reserved,
            owner: claim.owner(),
            temporary: false,
        };
        let taken = self.taken(pool, (size, head), page, claim);
        taken.claim.commit();
        Some(taken)
    }
    /// Notes that a page is in use from now on.
    fn taken(
        self: &Arc<Self>,
        mut pool: MutexGuard<'_, Pool>,
        (size, head): (HugeSize, Pfn),
        page: InUse,
        claim: Claim,
    ) -> PoolPage {
        let reserved = page.restores;
        pool.used.insert(head.0, page);
        self.pools.used.fetch_add(1, Ordering::Relaxed);
        drop(pool);
        self.make_large(head, size.frames());
        PoolPage {
            mem: Arc::clone(self),
            size,
            head,
            claim,
            reserved,
            kept: false,
        }
    }
    /// Takes a page to which one of this size moves: a free one that is not promised, or one from
    /// outside of the pool, which leaves the pool with the next page that is free. There is no such
    /// page of 1 GiB (`alloc_hugetlb_folio_nodemask`).
    pub(crate) fn take_huge_to_move(self: &Arc<Self>, size: HugeSize) -> Option<PoolPage> {
        self.inject().check(AllocKind::Frame).ok()?;
        let mut pool = self.pools.of(size).lock();
        let free = match pool.available() != 0 {
            true => pool.free.pop().map(Pfn),
            false => None,
        };
        let head = match free {
            Some(head) => head,
            None if size == HugeSize::Gib1 => return None,
            None => self.free.take_block(size.frames())?,
        };
        let page = InUse {
            frames: size.frames(),
            restores: false,
            owner: None,
            temporary: free.is_none(),
        };
        Some(self.taken(pool, (size, head), page, Claim::None))
    }
    /// Notes that the page of a pool has moved to the one that begins with `new`: the new one is
    /// what the old one was for the pool, and the reverse (`move_hugetlb_state`). Returns false for
    /// a page of no pool.
    pub(crate) fn move_in_pool(&self, page: Large, new: Pfn) -> bool {
        let Some(size) = self.size_in_pool(page.head()) else {
            return false;
        };
        let mut pool = self.pools.of(size).lock();
        let Pool { used, .. } = &mut *pool;
        let moved = used.remove(&page.head().0).zip(used.remove(&new.0));
        let (old, other) = moved.expect("both pages are in use");
        used.insert(
            new.0,
            InUse {
                frames: other.frames,
                ..old
            },
        );
        used.insert(
            page.head().0,
            InUse {
                frames: old.frames,
                ..other
            },
        );
        true
    }
    /// Gives the reservation of a private page back to the mapping that made it and drops it now;
    /// the pool gets it back when the page is free. Does nothing while there are surplus pages
    /// (`__unmap_hugepage_range`).
    pub(crate) fn restore_huge(&self, head: Pfn) {
        for size in HugeSize::ALL {
            let mut pool = self.pools.of(size).lock();
            let has_surplus = pool.surplus > 0;
            if let Some(page) = pool.used.get_mut(&head.0)
                && !has_surplus
            {
                page.restores = true;
                if let Some((map, index)) = &page.owner {
                    map.remove(*index..index + 1);
                }
            }
        }
    }
    /// Returns true if the frame is part of a huge page of a pool (`folio_test_hugetlb`). The
    /// caller keeps the page in use.
    pub(crate) fn is_of_pool(&self, pfn: Pfn) -> bool {
        self.size_in_pool(pfn).is_some()
    }
    /// Returns the size of the huge page of a pool that the frame is part of. The caller keeps the
    /// page in use.
    pub(crate) fn size_in_pool(&self, pfn: Pfn) -> Option<HugeSize> {
        let is_of = |size: &HugeSize| {
            let head = size.head(pfn);
            self.pools.of(*size).lock().used.contains_key(&head.0)
        };
        let any = self.pools.used.load(Ordering::Relaxed) > 0 && self.is_large(pfn);
        HugeSize::ALL.into_iter().filter(|_| any).find(is_of)
    }
    /// Returns the large page that the frame is part of, also one of a pool, which may be larger
    /// than others. The caller keeps the page in use.
    pub(crate) fn large_or_pooled(&self, pfn: Pfn) -> Option<Large> {
        match self.size_in_pool(pfn) {
            Some(size) => Some(Large::new(size.head(pfn), size.frames())),
            None => self.large(pfn),
        }
    }
    /// Counts a retired frame of a huge page of a pool; the last one frees the page
    /// (`free_huge_folio`). Returns false for a frame of no pool.
    pub(super) fn return_to_pool(&self, pfn: Pfn) -> bool {
        // A page of a pool has frames that are not retired yet: this one, among others.
        self.pools.used.load(Ordering::Relaxed) > 0
            && HugeSize::ALL
                .iter()
                .any(|&size| self.returned(size, size.head(pfn)))
    }
    fn returned(&self, size: HugeSize, head: Pfn) -> bool {
        let mut pool = self.pools.of(size).lock();
        let Some(page) = pool.used.get_mut(&head.0) else {
            return false;
        };
        page.frames -= 1;
        if page.frames == 0 {
            let (restores, temporary) = (page.restores, page.temporary);
            pool.used.remove(&head.0);
            self.pools.used.fetch_sub(1, Ordering::Relaxed);
            pool.reserved += i64::from(restores);
            if temporary || pool.surplus > 0 {
                pool.surplus -= u64::from(!temporary);
                // A change of the pool's size has counted a temporary page as any other.
                pool.surplus = pool.surplus.min(pool.total());
                self.free.put_block(head, size.frames());
            } else {
                pool.free.push(head.0);
            }
        }
        true
    }
}

impl Claim {
    /// Returns true if a page was promised.
    fn is_reserved(&self) -> bool {
        match self {
            Self::File(map, index) => map.has(*index),
            Self::Mapping(map, index) => !map.has(*index),
            Self::None | Self::Copy(..) => false,
        }
    }
    /// Marks the page as taken (`vma_commit_reservation`).
    fn commit(&self) {
        if let Self::File(map, index) | Self::Mapping(map, index) = self {
            map.add(*index..index + 1);
        }
    }
    /// Returns the map of the private mapping.
    fn owner(&self) -> Option<(Arc<ResvMap>, u64)> {
        match self {
            Self::Mapping(map, index) | Self::Copy(map, index) => Some((Arc::clone(map), *index)),
            Self::None | Self::File(..) => None,
        }
    }
}

impl PoolPage {
    /// Returns the first frame.
    pub(crate) fn head(&self) -> Pfn {
        self.head
    }
    /// Gives each frame flags beside those that it has, and an owner: the first the given one, the
    /// others those of the following indices.
    pub(crate) fn own(&self, flags: FrameFlags, first: Owner) {
        for i in 0..self.size.frames() {
            let index = first.index + u64::from(i);
            self.mem.set_flags(self.head.nth(i), flags);
            self.mem
                .set_owner(self.head.nth(i), Some(Owner { index, ..first }));
        }
    }
    /// Writes the bytes of all of the page.
    pub(crate) fn write(&self, bytes: &[u8]) {
        let pages = bytes.chunks(PAGE_SIZE as usize);
        for (i, part) in (0..self.size.frames()).zip(pages) {
            self.mem.write(self.head.nth(i), 0, part);
        }
    }
    /// Leaves the references on the frames to the place where the page is now.
    pub(crate) fn keep(mut self) -> Pfn {
        let mut pool = self.mem.pools.of(self.size).lock();
        let page = pool.used.get_mut(&self.head.0);
        page.expect("it is in use").restores = false;
        drop(pool);
        self.kept = true;
        self.head
    }
    /// Leaves the page to the mapping that `map` makes. As soon as it is made, another thread may
    /// unmap it, so the reservation is used up before.
    ///
    /// # Errors
    ///
    /// That of `map`; the page goes back to the pool, without its reservation.
    pub(crate) fn keep_mapped<E>(self, map: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        let (mem, frames) = (Arc::clone(&self.mem), self.size.frames());
        let head = self.keep();
        map().inspect_err(|_| {
            (0..frames).for_each(|i| drop(mem.adopt(head.nth(i))));
        })
    }
    /// Leaves the page to entries that have references of their own.
    pub(crate) fn leave(self) {
        let (mem, frames) = (Arc::clone(&self.mem), self.size.frames());
        let head = self.keep();
        for i in 0..frames {
            drop(mem.adopt(head.nth(i)));
        }
    }
}

/// Undoes the taking, as `restore_reserve_on_error` does.
impl Drop for PoolPage {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        match (&self.claim, self.reserved) {
            (Claim::File(map, index), false) | (Claim::Mapping(map, index), true) => {
                map.remove(*index..index + 1);
            }
            _ => {}
        }
        for i in 0..self.size.frames() {
            drop(self.mem.adopt(self.head.nth(i)));
        }
    }
}

impl fmt::Debug for PoolPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PoolPage({:?}, {:?})", self.head, self.size)
    }
}
