//! Shared memory in larger folios: how many pages come in at once (`shmem_allowable_huge_orders`,
//! `shmem_suitable_orders`).

use super::{
    PageCache, PageRequest,
    by_daemon::ByDaemon,
    filling::Filling,
    folios::aligned,
    slots::{PageSlot, PageSlots},
};
use crate::{
    addr::{PAGE_SIZE, Pfn},
    error::{NoMemory, ObjectError},
    frame::{Frame, FrameFlags, HUGE, MAX_INDEX},
};
use std::ops::RangeInclusive;

/// The order of a huge page.
const ORDER: u32 = HUGE.trailing_zeros();

/// The number of pages of shared memory that come in at once: the mount option `huge=` of a
/// `tmpfs`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HugePolicy {
    /// Each page comes in alone.
    #[default]
    Never,
    /// A fault brings in a huge page, if none of its pages exists yet and it can be mapped as one;
    /// a write brings in as many pages as fit.
    Always,
    /// Like `Always`, but only before the end of the file; a fault also like `Advise`.
    WithinSize,
    /// A fault brings in a huge page where that was advised
    /// ([`Advice::HugePage`](crate::mm::Advice::HugePage)).
    Advise,
}

/// The need for a page that is not in memory.
#[derive(Clone, Copy)]
pub(super) enum PageNeed<'w> {
    /// A fault needs it.
    Fault(&'w PageRequest),
    /// A write needs it, which makes the object that many bytes long.
    Write(u64),
}

impl HugePolicy {
    /// Returns the orders of a folio that the policy allows (`shmem_huge_global_enabled`): a fault
    /// brings in a huge page or one page alone, a write any number between.
    fn orders(self, index: u64, size: u64, need: PageNeed<'_>) -> RangeInclusive<u32> {
        let (least, end, advised) = match need {
            PageNeed::Fault(want) if !want.huge => return RangeInclusive::new(1, 0),
            PageNeed::Fault(want) => (ORDER, size, want.advised),
            PageNeed::Write(end) => (1, size.max(end), false),
        };
        let pages = end.div_ceil(PAGE_SIZE);
        let within = |order: &u32| aligned(index, *order).end <= pages;
        let advice = if advised { ORDER } else { 0 };
        let most = match self {
            Self::Never => 0,
            Self::Always => ORDER,
            Self::WithinSize => (least..=ORDER).rev().find(within).unwrap_or(advice),
            Self::Advise => advice,
        };
        least..=most
    }
}

impl ByDaemon {
    /// Returns true if the policy lets `khugepaged` work on the mapping, by the block in which it
    /// begins (`shmem_allowable_huge_orders`).
    fn is_allowed(&self, policy: HugePolicy, size: u64) -> bool {
        let is_within = aligned(self.mapped, ORDER).end <= size.div_ceil(PAGE_SIZE);
        match policy {
            HugePolicy::Never => false,
            HugePolicy::Always => true,
            HugePolicy::WithinSize => is_within || self.advised,
            HugePolicy::Advise => self.advised,
        }
    }
}

impl PageNeed<'_> {
    /// Returns true if a folio of that order can be mapped as a whole by the mapping that needs it
    /// (`thp_vma_suitable_orders`).
    fn suits(self, index: u64, order: u32) -> bool {
        let Self::Fault(want) = self else {
            return true;
        };
        let pages = aligned(index, order);
        want.skew.is_multiple_of(1 << order)
            && want.mapped.start <= pages.start
            && pages.end <= want.mapped.end
    }
}

impl<'c> Filling<'c, '_> {
    /// Returns the frame of page `index`; a missing page comes in with the neighbours that the
    /// policy allows.
    ///
    /// # Errors
    ///
    /// Those of [`get_or_make`](Self::get_or_make).
    pub(super) fn get_or_make_as(
        &mut self,
        index: u64,
        (policy, size): (HugePolicy, u64),
        need: PageNeed<'_>,
    ) -> Result<Frame<'c>, ObjectError> {
        self.bring_together(index, (policy, size), need);
        Ok(self.get_or_make(index, |_| Ok(()))?.0)
    }
    /// Brings in a missing page with its neighbours, if the policy allows more than the page alone.
    pub(super) fn bring_together(
        &mut self,
        index: u64,
        (policy, size): (HugePolicy, u64),
        need: PageNeed<'_>,
    ) {
        let orders = policy.orders(index, size, need);
        if !orders.is_empty() && index < MAX_INDEX - u64::from(HUGE) {
            self.cache().bring_folio(index, orders, need);
        }
    }
}

impl PageCache {
    /// Returns true if `khugepaged` makes pages `[first, first + 512)` a huge page
    /// (`hpage_collapse_scan_file`).
    pub(super) fn suits(&self, first: u64, how: (HugePolicy, u64), by: &ByDaemon) -> bool {
        let end = first + u64::from(HUGE);
        let slots = self.slots.lock();
        let (mut present, mut swapped, mut at) = (0, 0, first);
        while let Some((index, slot)) = slots.next(at, end) {
            match slot {
                PageSlot::Swap(_) => swapped += 1,
                PageSlot::Frame(_) | PageSlot::Unread(_) => present += 1,
            }
            at = index + 1;
        }
        by.is_allowed(how.0, how.1) && HUGE - present <= by.none && swapped <= by.swap
    }
    /// Brings in the largest folio around the missing page `index` that is allowed, suits the need,
    /// and has memory and no page in the cache yet. Brings in nothing if only the page alone is so.
    fn bring_folio(&self, index: u64, orders: RangeInclusive<u32>, need: PageNeed<'_>) {
        let mut slots = self.slots.lock();
        if slots.get(index).is_some() {
            return;
        }
        let free = |slots: &PageSlots, order: u32| {
            let pages = aligned(index, order);
            slots.next(pages.start, pages.end).is_none()
        };
        for order in orders.rev() {
            if need.suits(index, order)
                && free(&slots, order)
                && let Ok(frames) = self.new_frames(order)
            {
                self.put_folio(&mut slots, aligned(index, order).start, &frames);
                slots.folios.join(index, order);
                return;
            }
        }
    }
    /// Allocates the frames of a folio; those of a huge page lie in a row.
    fn new_frames(&self, order: u32) -> Result<Vec<Frame<'_>>, NoMemory> {
        let mem = &self.host().mem;
        if order == ORDER {
            let huge = mem.alloc_huge().map_err(|_| NoMemory::Frame)?;
            let head = huge.into_raw();
            return Ok((0..HUGE).map(|i| mem.adopt(head.nth(i))).collect());
        }
        let frames = (0..1 << order).map(|_| mem.alloc());
        frames
            .collect::<Result<_, _>>()
            .map_err(|_| NoMemory::Frame)
    }
    /// Enters the frames as the pages from `first` on.
    fn put_folio(&self, slots: &mut PageSlots, first: u64, frames: &[Frame<'_>]) {
        let mem = &self.host().mem;
        for (index, frame) in (first..).zip(frames) {
            let pfn: Pfn = frame.clone().into_raw();
            mem.set_flags(pfn, FrameFlags::SWAP_BACKED);
            mem.set_owner(pfn, Some(self.mapping().owner(index)));
            slots.insert(index, PageSlot::Frame(pfn));
            self.add_to_list(pfn);
        }
    }
}
