//! The pages that are on their way, and the steps of a migration after the first.

use super::Stays;
use crate::mm::{
    machine::{HomePage, hand_over::references_to_move},
    space::Mm,
};
use crate::{
    addr::Vpn,
    ctx::FolioCx,
    frame::{Frame, FrameFlags, FrameLock, PhysMem},
    rmap::{Blocking, Unmap, restore, unmap_frame},
    sync::Despite,
};

/// Pages that were taken out of the page table. When this is dropped, their marks become entries
/// of the new frame, or of the old one if the page has not moved.
pub(in crate::mm) struct Migration<'a> {
    pub(super) mm: &'a Mm,
    pub(super) cx: FolioCx<'a>,
    pub(in crate::mm) pages: Vec<Moving<'a>>,
}

/// A page on its way.
pub(in crate::mm) struct Moving<'a> {
    pub(in crate::mm) at: Vpn,
    pub(in crate::mm) old: FrameLock<'a>,
    /// The frame that it may move to.
    pub(in crate::mm) new: Option<FrameLock<'a>>,
    pub(in crate::mm) moved: bool,
    /// The reason for which it stays, if it gets no frame.
    pub(in crate::mm) stays: Stays,
    /// The page was on a list of reclaim, or locked in memory.
    listed: bool,
}

impl<'a> Moving<'a> {
    pub(in crate::mm) fn new(mem: &PhysMem, at: Vpn, old: FrameLock<'a>) -> Self {
        let flags = mem.flags(old.pfn());
        Self {
            at,
            listed: flags.intersects(FrameFlags::LRU | FrameFlags::UNEVICTABLE),
            old,
            new: None,
            moved: false,
            stays: Stays::Driver,
        }
    }
    /// Lets the page move to this frame, which no other thread knows.
    pub(in crate::mm) fn go_to(&mut self, mem: &'a PhysMem, frame: Frame<'a>) {
        self.new = mem.try_lock(frame).ok();
    }
}

impl<'a> Migration<'a> {
    pub(in crate::mm) fn new(mm: &'a Mm, cx: FolioCx<'a>) -> Self {
        let pages = Vec::new();
        Self { mm, cx, pages }
    }
    fn mem(&self) -> &'a PhysMem {
        self.mm.machine().mem()
    }
    /// Takes out the other mappings of the pages, and gives those back that are referenced by more
    /// than these (`migrate_device_unmap`). Returns the pages that stay.
    pub(in crate::mm) fn unmap(&mut self) -> Vec<Vpn> {
        let (mem, registry) = (self.mem(), self.mm.machine().registry());
        for moving in &mut self.pages {
            let pfn = moving.old.pfn();
            let how = (Unmap::Migration, Blocking::May);
            let gone = mem.mapcount(pfn) == 0
                || unmap_frame(registry, mem, &mut self.cx, &moving.old, how.0, how.1).is_ok();
            if !gone || mem.refcount(pfn) != references_to_move(mem.flags(pfn)) {
                moving.stays = Stays::InUse;
            }
        }
        let pages = std::mem::take(&mut self.pages).into_iter();
        let (back, rest) = pages.partition::<Vec<_>, _>(|moving| moving.stays == Stays::InUse);
        self.pages = rest;
        let put_back = |moving: &Moving<'_>| put_back(self.mm, &mut self.cx, moving);
        back.iter().for_each(put_back);
        back.iter().map(|moving| moving.at).collect()
    }
    /// Copies the bytes, and hands the pages over that have a frame to go to; `copy` copies one, or
    /// returns false (`migrate_device_pages`).
    pub(in crate::mm) fn hand_over(&mut self, mut copy: impl FnMut(&HomePage<'_>) -> bool) {
        let (mem, machine) = (self.mem(), self.mm.machine());
        for moving in &mut self.pages {
            let (old, Some(new)) = (&moving.old, &moving.new) else {
                continue;
            };
            let cached = mem.flags(old.pfn()).contains(FrameFlags::SWAP_CACHE);
            if cached && mem.is_device(new.pfn()) && !mem.swap_cache_drop(old) {
                continue; // Another entry refers to its slot of swap.
            }
            let page = HomePage::new(mem, old, new);
            moving.moved = machine.hand_over(old, new, || copy(&page));
        }
    }
    /// Returns the outcome of each page.
    pub(in crate::mm) fn outcomes(&self) -> impl Iterator<Item = (Vpn, Result<(), Stays>)> {
        self.pages.iter().map(|moving| {
            let why = match &moving.new {
                None => moving.stays,
                Some(_) => Stays::InUse,
            };
            (moving.at, moving.moved.then_some(()).ok_or(why))
        })
    }
}

/// Makes the marks of a page entries of the frame that it has now, and puts it on the list where it
/// was (`remove_migration_ptes`, `folio_putback_lru`).
fn put_back(mm: &Mm, cx: &mut FolioCx<'_>, moving: &Moving<'_>) {
    let machine = mm.machine();
    let to = moving.new.as_ref().filter(|_| moving.moved);
    let to = to.unwrap_or(&moving.old);
    restore(machine.registry(), cx, &moving.old, to);
    if moving.moved || moving.listed {
        machine.mem().lru_add(to.pfn());
    }
}

impl Drop for Migration<'_> {
    fn drop(&mut self) {
        let mut despite = Despite::default();
        for moving in std::mem::take(&mut self.pages) {
            despite.call(|| put_back(self.mm, &mut self.cx, &moving));
        }
        despite.resume();
    }
}
