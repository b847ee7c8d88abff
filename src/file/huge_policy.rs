//! When pages of shared memory come in as larger folios: `shmem_allowable_huge_orders`, `shmem_suitable_orders`.

use super::{
    PageCache, Want,
    filling::Filling,
    folios::aligned,
    slots::{Slot, Slots},
};
use crate::{
    addr::{PAGE_SIZE, Pfn},
    error::NoMemory,
    frame::{Frame, FrameFlags, HUGE, MAX_INDEX},
};
use std::ops::RangeInclusive;

/// The order of a huge page.
const ORDER: u32 = HUGE.trailing_zeros();

/// Whether pages of shared memory come in alone: how a `tmpfs` is mounted (`huge=`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HugePolicy {
    /// Each comes alone.
    #[default]
    Never,
    /// A fault brings in a huge page, if nothing is there yet in its place and it can be mapped as one; a write as many pages
    /// as fit.
    Always,
    /// The same, before the end of the file; and what a fault brings in where it was advised.
    WithinSize,
    /// What a fault brings in where it was advised ([`Advice::HugePage`](crate::mm::Advice::HugePage)).
    Advise,
}

/// Who wants a page that is not there.
#[derive(Clone, Copy)]
pub(super) enum Asks<'w> {
    /// A fault.
    Fault(&'w Want),
    /// A write that makes the object so long.
    Write(u64),
}

impl HugePolicy {
    /// The orders that a page may come in with, by the policy alone (`shmem_huge_global_enabled`): what is faulted in is a huge
    /// page or one alone, what is written may be anything between.
    fn orders(self, index: u64, size: u64, asks: Asks<'_>) -> RangeInclusive<u32> {
        let (least, end, advised) = match asks {
            Asks::Fault(want) => (ORDER, size, want.advised),
            Asks::Write(end) => (1, size.max(end), false),
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

impl Asks<'_> {
    /// Whether a folio of that order can be mapped as a whole where it is wanted (`thp_vma_suitable_orders`).
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
    /// The frame of page `index`, which comes in with its neighbours as the policy says.
    ///
    /// # Errors
    ///
    /// As [`get_or_make`](Self::get_or_make).
    pub(super) fn get_or_make_as(
        &mut self,
        index: u64,
        (policy, size): (HugePolicy, u64),
        asks: Asks<'_>,
    ) -> Result<Frame<'c>, crate::error::ObjectError> {
        let orders = policy.orders(index, size, asks);
        if !orders.is_empty() && index < MAX_INDEX - u64::from(HUGE) {
            self.cache().bring_folio(index, orders, asks);
        }
        Ok(self.get_or_make(index, |_| Ok(()))?.0)
    }
}

impl PageCache {
    /// Brings in the largest folio around page `index`, which is not there, that is allowed, suits, meets no page that is there,
    /// and for which there is memory. None, if that is the page alone.
    fn bring_folio(&self, index: u64, orders: RangeInclusive<u32>, asks: Asks<'_>) {
        let mut slots = self.slots.lock();
        if slots.get(index).is_some() {
            return;
        }
        let free = |slots: &Slots, order: u32| {
            let pages = aligned(index, order);
            slots.next(pages.start, pages.end).is_none()
        };
        for order in orders.rev() {
            if asks.suits(index, order)
                && free(&slots, order)
                && let Ok(frames) = self.new_frames(order)
            {
                self.put_folio(&mut slots, aligned(index, order).start, &frames);
                slots.folios.join(index, order);
                return;
            }
        }
    }
    /// So many frames; those of a huge page in a row.
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
    fn put_folio(&self, slots: &mut Slots, first: u64, frames: &[Frame<'_>]) {
        let mem = &self.host().mem;
        for (index, frame) in (first..).zip(frames) {
            let pfn: Pfn = frame.clone().into_raw();
            mem.set_flags(pfn, FrameFlags::SWAP_BACKED);
            mem.set_owner(pfn, Some(self.mapping().owner(index)));
            slots.insert(index, Slot::Frame(pfn));
            mem.lru_add(pfn);
        }
    }
}
