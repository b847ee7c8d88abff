//! Memory slots: the map of guest frames to pages of the address space.

use super::{
    gfn::{GFN_BITS, Gfn},
    guest_pages::SlotMemory,
};
use crate::{
    addr::{PMD_PAGES, TASK_PAGES, Vpn, VpnRange},
    error::Errno,
};
use bitflags::bitflags;
use std::sync::Arc;
use thiserror::Error;

bitflags! {
    /// The flags of a slot (`KVM_MEM_*`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct SlotFlags: u32 {
        /// Pages that the guest writes are logged.
        const LOG_DIRTY_PAGES = 1;
        /// Stores of the guest leave the guest.
        const READONLY = 1 << 1;
        /// A guest file has the pages that are private ([`Vm::set_guest_memory`]).
        ///
        /// [`Vm::set_guest_memory`]: super::Vm::set_guest_memory
        const GUEST_MEMFD = 1 << 2;
        /// The guest file has the shared pages as well. Set by the machine, for a file with
        /// [`MMAP`](super::GuestMemfdFlags::MMAP) (`KVM_MEMSLOT_GMEM_ONLY`).
        const GMEM_ONLY = 1 << 17;
    }
}

/// A range of guest frames and the pages behind them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemSlot {
    /// The number of the slot.
    pub id: u16,
    /// The first guest frame.
    pub gfn: Gfn,
    /// The number of guest frames.
    pub pages: u64,
    /// The page of the address space that is behind the first guest frame.
    pub hva: Vpn,
    /// The flags.
    pub flags: SlotFlags,
}

/// A slot cannot be set (`KVM_SET_USER_MEMORY_REGION`), or its log not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SlotError {
    /// The slot has no pages, or its pages leave the guest's or the host's address space.
    #[error("slot {0}: its frames or pages are none, or leave the address space")]
    Range(u16),
    /// The frames belong to another slot.
    #[error("guest frame {gfn:#x} is in slot {other} already")]
    Overlap {
        /// The first frame of both.
        gfn: u64,
        /// The other slot.
        other: u16,
    },
    /// The slot exists with another size, other pages, or other flags than the one for logging; or
    /// it has a guest file, and never changes.
    #[error("slot {0} exists, and cannot become that: delete it first")]
    Changed(u16),
    /// No such slot has these flags: one with a guest file neither logs nor is read-only, and is
    /// set with its file.
    #[error("slot {0} cannot have these flags")]
    Flags(u16),
    /// The guest file is one of another machine, or has not these pages, or another slot has some
    /// of them.
    #[error("slot {0} cannot have these pages of the guest file")]
    GuestMemfd(u16),
    /// The slot does not exist.
    #[error("slot {0} does not exist")]
    Missing(u16),
    /// The slot does not log the pages that the guest writes, or does not exist.
    #[error("slot {0} has no dirty log")]
    NoLog(u16),
}

impl SlotError {
    /// Returns the errno of the ioctl.
    pub fn errno(&self) -> Errno {
        match self {
            Self::Overlap { .. } => Errno::EEXIST,
            Self::NoLog(_) => Errno::ENOENT,
            Self::Range(_)
            | Self::Changed(_)
            | Self::Flags(_)
            | Self::GuestMemfd(_)
            | Self::Missing(_) => Errno::EINVAL,
        }
    }
}

impl MemSlot {
    /// The slot that shows a guest all memory of the process, at the process's own addresses.
    pub const ALL_MEMORY: Self = Self {
        id: 0,
        gfn: Gfn(0),
        pages: TASK_PAGES,
        hva: Vpn(0),
        flags: SlotFlags::empty(),
    };

    /// Returns the pages behind the slot.
    pub fn hvas(&self) -> VpnRange {
        VpnRange::new(self.hva, self.hva.plus(self.pages)).expect("a slot has pages")
    }
    /// Returns true if the guest frame is one of the slot.
    pub fn contains(&self, gfn: Gfn) -> bool {
        (self.gfn.0..self.gfn.0 + self.pages).contains(&gfn.0)
    }
    /// Returns the page behind a guest frame of the slot.
    pub fn hva_of(&self, gfn: Gfn) -> Vpn {
        self.hva.plus(gfn.0 - self.gfn.0)
    }
    /// Returns true if pages that the guest writes are logged.
    pub(super) fn logs(&self) -> bool {
        self.flags.contains(SlotFlags::LOG_DIRTY_PAGES)
    }
    /// Returns the guest frames whose pages are in `range`, half-open.
    pub fn gfns(&self, range: VpnRange) -> Option<(Gfn, Gfn)> {
        let part = self.hvas().intersect(range)?;
        let first = self.gfn.0 + (part.start().0 - self.hva.0);
        Some((Gfn(first), Gfn(first + part.pages())))
    }
    /// Returns the guest frames, half-open, that huge entries can have: whole blocks of 2 MiB whose
    /// pages have the same alignment.
    pub(super) fn huge_blocks(&self) -> Option<(Gfn, Gfn)> {
        let first = self.gfn.0.next_multiple_of(PMD_PAGES);
        let end = (self.gfn.0 + self.pages) & !(PMD_PAGES - 1);
        let alike = self.gfn.0 % PMD_PAGES == self.hva.0 % PMD_PAGES;
        (alike && first < end).then_some((Gfn(first), Gfn(end)))
    }
    fn check(&self) -> Result<(), SlotError> {
        let top =
            |first: u64, limit: u64| first.checked_add(self.pages).is_some_and(|t| t <= limit);
        let fits = self.pages > 0
            && top(self.gfn.0, 1 << GFN_BITS)
            && top(self.hva.0, crate::addr::TASK_PAGES);
        if fits {
            Ok(())
        } else {
            Err(SlotError::Range(self.id))
        }
    }
}

/// The slots of a machine at one moment: a value that is replaced as a whole, never changed.
/// Aligned, so that the count of references, which windows take, has a line of its own.
#[derive(Clone, Debug, Default)]
#[repr(align(64))]
pub struct MemSlots {
    /// Sorted by guest frame.
    by_gfn: Vec<MemSlot>,
    /// Sorted by page, each with the highest end up to it: an interval tree that never changes
    /// needs no more.
    by_hva: Vec<(MemSlot, Vpn)>,
    /// The pages of guest files, by the number of their slot.
    memory: Vec<(u16, SlotMemory)>,
    generation: u64,
}

impl MemSlots {
    /// Returns the number of changes, times two: an odd number stands for a change under way
    /// (`KVM_MEMSLOT_GEN_UPDATE_IN_PROGRESS`).
    pub fn generation(&self) -> u64 {
        self.generation
    }
    /// Iterates over the slots by guest frame.
    pub fn iter(&self) -> impl Iterator<Item = &MemSlot> {
        self.by_gfn.iter()
    }
    /// Returns the slot with that number.
    pub fn by_id(&self, id: u16) -> Option<&MemSlot> {
        self.by_gfn.iter().find(|s| s.id == id)
    }
    /// Returns the slot of a guest frame.
    pub fn find(&self, gfn: Gfn) -> Option<&MemSlot> {
        let at = self.by_gfn.partition_point(|s| s.gfn <= gfn);
        self.by_gfn[..at].last().filter(|s| s.contains(gfn))
    }
    /// Iterates over the slots with a page in `range`. Several slots may have one page.
    pub fn overlapping(&self, range: VpnRange) -> impl Iterator<Item = &MemSlot> {
        let end = self.by_hva.partition_point(|(s, _)| s.hva < range.end());
        let near = self.by_hva[..end].iter().rev();
        near.take_while(move |(_, top)| *top > range.start())
            .map(|(slot, _)| slot)
            .filter(move |s| s.hvas().overlaps(range))
    }
    /// Iterates over the guest frames whose pages are in `range`, slot by slot, half-open.
    pub(super) fn gfns(&self, range: VpnRange) -> impl Iterator<Item = (Gfn, Gfn)> {
        self.overlapping(range).filter_map(move |s| s.gfns(range))
    }
    /// Returns the guest file's pages of a slot.
    pub(super) fn memory_of(&self, slot: &MemSlot) -> Option<&SlotMemory> {
        let mine = self.memory.iter().find(|(id, _)| *id == slot.id);
        mine.map(|(_, memory)| memory)
    }
    /// Checks that a slot is new, or may change so (`kvm_set_memory_region`).
    pub(super) fn check_change(&self, slot: &MemSlot) -> Result<(), SlotError> {
        const KEPT: SlotFlags = SlotFlags::READONLY.union(SlotFlags::GUEST_MEMFD);
        slot.check()?;
        let may = self.by_id(slot.id).is_none_or(|old| {
            let same = (old.pages, old.hva) == (slot.pages, slot.hva);
            let has_file = (old.flags | slot.flags).contains(SlotFlags::GUEST_MEMFD);
            same && !has_file && !(old.flags ^ slot.flags).intersects(KEPT)
        });
        match may {
            true => Ok(()),
            false => Err(SlotError::Changed(slot.id)),
        }
    }
    /// Gives a slot pages of a guest file.
    pub(super) fn set_memory(&mut self, id: u16, memory: SlotMemory) {
        self.memory.push((id, memory));
    }
    /// Returns the slots with one added, moved, or changed in its flags: it is
    /// [checked](Self::check_change) already. It has no guest file.
    pub(super) fn with(&self, slot: MemSlot) -> Result<Self, SlotError> {
        let mut slots = self.by_gfn.clone();
        slots.retain(|s| s.id != slot.id);
        let clash = slots
            .iter()
            .find(|s| s.gfn.0 < slot.gfn.0 + slot.pages && slot.gfn.0 < s.gfn.0 + s.pages);
        if let Some(other) = clash {
            return Err(SlotError::Overlap {
                gfn: other.gfn.0.max(slot.gfn.0),
                other: other.id,
            });
        }
        slots.push(slot);
        Ok(self.replaced(slots, slot.id))
    }
    /// Returns the slots without one.
    pub(super) fn without(&self, id: u16) -> Result<Arc<Self>, SlotError> {
        let mut slots = self.by_gfn.clone();
        slots.retain(|s| s.id != id);
        if slots.len() == self.by_gfn.len() {
            return Err(SlotError::Missing(id));
        }
        Ok(Arc::new(self.replaced(slots, id)))
    }
    /// Returns these slots, of which slot `id` has no guest file.
    fn replaced(&self, mut slots: Vec<MemSlot>, id: u16) -> Self {
        let memory = self.memory.iter().filter(|(of, _)| *of != id);
        slots.sort_by_key(|s| s.hva);
        let mut top = Vpn(0);
        let by_hva = slots.iter().map(|s| {
            top = top.max(s.hvas().end());
            (*s, top)
        });
        let by_hva = by_hva.collect();
        slots.sort_by_key(|s| s.gfn);
        Self {
            by_gfn: slots,
            by_hva,
            memory: memory.cloned().collect(),
            generation: self.generation + 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(id: u16, gfn: u64, pages: u64, hva: u64) -> MemSlot {
        MemSlot {
            id,
            gfn: Gfn(gfn),
            pages,
            hva: Vpn(hva),
            flags: SlotFlags::empty(),
        }
    }
    fn range(a: u64, b: u64) -> VpnRange {
        VpnRange::new(Vpn(a), Vpn(b)).unwrap()
    }

    #[test]
    fn slots_are_found_by_guest_frame_and_by_page() {
        let slots = MemSlots::default();
        let slots = slots.with(slot(0, 0, 10, 1000)).unwrap();
        let slots = slots.with(slot(1, 100, 100, 1005)).unwrap();
        let slots = slots.with(slot(2, 50, 1, 2000)).unwrap();
        assert_eq!(slots.find(Gfn(9)).unwrap().id, 0);
        assert_eq!(slots.find(Gfn(10)), None);
        assert_eq!(slots.find(Gfn(199)).unwrap().hva_of(Gfn(199)), Vpn(1104));
        let mut hit: Vec<u16> = slots.overlapping(range(1009, 1010)).map(|s| s.id).collect();
        hit.sort_unstable();
        assert_eq!(hit, [0, 1]);
        assert_eq!(slots.overlapping(range(1105, 2000)).count(), 0);
        let first = slots.by_id(0).unwrap();
        assert_eq!(first.gfns(range(1004, 3000)), Some((Gfn(4), Gfn(10))));
    }

    #[test]
    fn what_cannot_be_a_slot_is_refused_with_its_errno() {
        let slots = MemSlots::default().with(slot(0, 10, 10, 100)).unwrap();
        let refused = |s| {
            slots
                .check_change(&s)
                .and_then(|()| slots.with(s))
                .unwrap_err()
        };
        assert_eq!(refused(slot(1, 0, 0, 0)), SlotError::Range(1));
        assert_eq!(refused(slot(1, (1 << 36) - 1, 2, 0)), SlotError::Range(1));
        assert_eq!(refused(slot(1, 0, 1, u64::MAX)), SlotError::Range(1));
        let overlap = refused(slot(1, 5, 6, 0));
        assert_eq!(overlap, SlotError::Overlap { gfn: 10, other: 0 });
        assert_eq!(overlap.errno(), Errno::EEXIST);
        assert_eq!(refused(slot(0, 10, 11, 100)), SlotError::Changed(0));
        assert_eq!(slots.without(7).unwrap_err(), SlotError::Missing(7));
        assert_eq!(
            slots.with(slot(0, 30, 10, 100)).unwrap().find(Gfn(10)),
            None
        );
    }
}
