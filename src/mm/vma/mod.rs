//! VMAs: ranges of pages with one set of rights, one object behind them and one anonymous family;
//! and the layout of an address space, which is all of its VMAs.
//!
//! Everything here changes only under the mmap lock held exclusively, but for the anonymous family
//! of a VMA, which the first write fault sets once under the lock held shared. The reverse maps
//! learn of a VMA's new place before its old place is given up, so that a walk over them never
//! misses a page (`docs/adr/0005-reverse-maps-know-the-new-place-first.md`).
//!
//! | file | holds |
//! | --- | --- |
//! | this one | [`Vma`]: one mapping, and its places in the reverse maps |
//! | `extras` | [`Extras`]: the rare properties of a VMA |
//! | `hugetlb` | VMAs of huge pages from a pool |
//! | `layout` | [`Layout`](layout::Layout): all VMAs, accounts, limits |
//! | `userfault` | [`Context`](userfault::Context): a userfaultfd, as the VMAs know it |
//! | `registered` | a VMA that is registered with one |
//! | `tree` | [`VmaTree`](tree::VmaTree): the ordered map that holds them |
//! | `walks` | [`Walks`]: the reverse maps that lead to a VMA, kept from walks |

pub(in crate::mm) mod extras;
pub(in crate::mm) mod hugetlb;
pub(in crate::mm) mod layout;
mod registered;
pub(in crate::mm) mod tree;
pub(in crate::mm) mod userfault;
mod walks;

pub(in crate::mm) use walks::Walks;

use super::entry::flags::VmFlags;
use crate::{
    addr::{Vpn, VpnRange},
    file::{File, MemoryObject, VmaReserve, same_file},
    rmap::{AnonLink, AnonVma, FileLink, NewPlace, RmapTarget, VmaPlacement},
    sync::OnceLock,
};
use extras::Extras;
use std::sync::{Arc, Weak};
use tree::Span;

/// A mark in the reverse map of an object: private pages of the VMA were written (`vma->anon_vma`).
pub(super) const WRITTEN: VmFlags = VmFlags::from_bits_retain(1 << 63);

/// One mapping. Its fields change only under the mmap lock held exclusively, but for `anon`, which
/// the first write fault sets once under the lock held shared.
///
/// Small, since VMAs are copied and moved: parts that many VMAs lack are elsewhere.
#[derive(Debug)]
pub(super) struct Vma {
    start: Vpn,
    end: Vpn,
    /// Page offset of `start`: in the object, or for private anonymous memory the page number at
    /// which it was mapped first. Linear within the VMA.
    pub(super) pgoff: u64,
    pub(super) flags: VmFlags,
    /// The mapped file; `None` for private anonymous memory.
    pub(super) file: Option<Arc<File>>,
    /// Place in the reverse map of the object; set once the VMA is in the layout.
    file_link: Option<Box<FileLink>>,
    /// Place in the anonymous family; unset until the first private page is written ("unfaulted").
    pub(super) anon: OnceLock<Box<AnonLink>>,
    pub(super) extras: Extras,
    /// The huge pages that were promised to this private mapping.
    pub(super) reserve: Option<Box<VmaReserve>>,
    /// A huge page was taken away before the VMA was entered into the reverse map; see
    /// [`is_stolen`](Self::is_stolen).
    stolen: bool,
}

/// Model checkers have other locks.
#[cfg(not(any(loom, shuttle)))]
const _: () = assert!(size_of::<Vma>() <= 88, "a VMA is small");

impl Vma {
    /// Creates a VMA that is in no layout and no reverse map yet.
    #[inline]
    pub(super) fn new(
        range: VpnRange,
        pgoff: u64,
        flags: VmFlags,
        file: Option<Arc<File>>,
    ) -> Self {
        Self {
            start: range.start(),
            end: range.end(),
            pgoff,
            flags,
            file,
            file_link: None,
            anon: OnceLock::new(),
            extras: Extras::default(),
            reserve: None,
            stolen: false,
        }
    }
    #[inline]
    pub(super) fn range(&self) -> VpnRange {
        VpnRange::new(self.start, self.end).expect("a VMA is never empty")
    }
    #[inline]
    pub(super) fn start(&self) -> Vpn {
        self.start
    }
    #[inline]
    pub(super) fn end(&self) -> Vpn {
        self.end
    }
    #[inline]
    pub(super) fn pages(&self) -> u64 {
        self.end.0 - self.start.0
    }
    /// Sets both ends and the page offset of the new start (`vma_set_range`).
    pub(super) fn set_range(&mut self, range: VpnRange, pgoff: u64) {
        self.start = range.start();
        self.end = range.end();
        self.pgoff = pgoff;
    }
    /// Page offset of `at`, which must lie inside.
    pub(super) fn pgoff_at(&self, at: Vpn) -> u64 {
        self.pgoff + (at.0 - self.start.0)
    }
    /// Page offset that a VMA right behind this one needs to continue it.
    #[inline]
    pub(super) fn pgoff_end(&self) -> u64 {
        self.pgoff.wrapping_add(self.pages())
    }
    #[inline]
    pub(super) fn is_anonymous(&self) -> bool {
        self.file.is_none()
    }
    #[inline]
    pub(super) fn anon_link(&self) -> Option<&AnonLink> {
        self.anon.get().map(|link| &**link)
    }
    #[inline]
    pub(super) fn anon_node(&self) -> Option<&Arc<AnonVma>> {
        self.anon_link().map(AnonLink::node)
    }
    /// The userfaultfd that the VMA is registered with.
    #[inline]
    pub(super) fn userfault(&self) -> Option<&Arc<userfault::Context>> {
        self.extras.userfault()
    }
    /// The device through which anonymous memory was mapped.
    pub(super) fn device(&self) -> Option<&Arc<File>> {
        self.extras.device()
    }
    /// Copies the VMA for a split, a move or a fork, with another range and page offset
    /// (`vm_area_dup`, `anon_vma_clone`). The copy is of the same anonymous family, and in no
    /// reverse map yet, and has no reservation.
    pub(super) fn dup(&self, range: VpnRange, pgoff: u64) -> Self {
        let mut dup = Self::new(range, pgoff, self.flags, self.file.clone());
        dup.extras = self.extras.clone();
        dup.stolen = self.is_stolen();
        if let Some(link) = self.anon.get() {
            let _fresh = dup.anon.set(link.clone());
        }
        dup
    }
    pub(super) fn object(&self) -> Option<&Arc<dyn MemoryObject>> {
        self.file.as_ref().map(|f| f.object())
    }
    /// Notes in the reverse map of the object that a private page is about to be written.
    pub(super) fn note_written(&self) {
        if let Some(link) = &self.file_link {
            link.add_flags(WRITTEN.bits());
        }
    }
    /// The marks in the reverse maps beside the flags.
    fn marks(&self) -> VmFlags {
        let written = self.file.is_some() && self.anon.get().is_some();
        match written {
            true => WRITTEN | self.huge_marks(),
            false => self.huge_marks(),
        }
    }
    /// Range, page offset and flags as the reverse maps keep them.
    pub(super) fn place(&self, space: &Weak<dyn RmapTarget>) -> VmaPlacement {
        VmaPlacement {
            space: space.clone(),
            range: self.range(),
            pgoff: self.pgoff,
            flags: (self.flags | self.marks()).bits(),
            nonlinear: self.flags.contains(VmFlags::NONLINEAR),
        }
    }
    /// Enters a forked VMA into the reverse map of its object, right behind its parent.
    pub(super) fn follow_parent(&mut self, parent: &Self, space: &Weak<dyn RmapTarget>) {
        if let Some(link) = &parent.file_link {
            let place = self.place(space);
            self.file_link = Some(Box::new(link.fork(&place)));
        }
    }
    /// Enters the present place into the reverse maps.
    #[inline]
    pub(super) fn follow(&mut self, space: &Weak<dyn RmapTarget>) {
        if self.file.is_none() && self.anon.get().is_none() {
            return;
        }
        let place = self.place(space);
        self.follow_as(&place);
    }
    /// Enters a future place into the reverse maps. Due before a neighbour gives that place up, so
    /// that a walk never misses a page between the two.
    pub(super) fn follow_as(&mut self, place: &VmaPlacement) {
        match (&mut self.file_link, &self.file) {
            (Some(link), _) => link.follow(place),
            (None, Some(file)) => {
                self.file_link = Some(Box::new(FileLink::new(file.mapping(), place)));
            }
            (None, None) => {}
        }
        if let Some(link) = self.anon.get_mut() {
            link.follow(place);
        }
    }
    /// The reverse maps that lead to this VMA, which is in the layout.
    pub(super) fn walks(&self) -> Walks {
        Walks::of(self.file_link.as_deref(), self.anon_link())
    }
    /// Moves the VMA to another address, where its pages are and its records in the reverse maps
    /// lead already ([`FrozenWalks::lead_to`](walks::FrozenWalks::lead_to)).
    pub(super) fn arrive(&mut self, range: VpnRange, pgoff: u64, place: NewPlace) {
        self.set_range(range, pgoff);
        if let Some(link) = &mut self.file_link {
            link.note_range(range);
        }
        if let Some(link) = self.anon.get_mut() {
            link.note_place(place);
        }
    }
    /// Returns true if only its own processes reach the pages (`vma_is_secretmem`). Such a VMA
    /// stays locked.
    pub(super) fn is_secret(&self) -> bool {
        self.object().is_some_and(|object| object.is_secret())
    }
    /// Returns true if a merge of VMAs may remove this one (`can_merge_remove_vma`).
    pub(super) fn may_be_merged(&self) -> bool {
        !self.object().is_some_and(|o| o.counts_mappings())
    }
    /// Returns true if one `mremap` may move the VMA along with others (`vma_multi_allowed`): its
    /// file chooses no addresses of its own.
    pub(super) fn moves_with_others(&self) -> bool {
        self.device().is_none() && self.may_be_merged()
    }
    /// Returns true if `mseal` sealed the VMA (`VM_SEALED`).
    pub(super) fn is_sealed(&self) -> bool {
        self.flags.contains(VmFlags::SEALED)
    }
    /// Returns true if this VMA and its neighbour `next` may share an anonymous family: they differ
    /// at most in rights that `mprotect` can change (`anon_vma_compatible`).
    pub(super) fn anon_compatible(&self, next: &Self) -> bool {
        self.end == next.start
            && same_file(self.file.as_ref(), next.file.as_ref())
            && same_file(self.device(), next.device())
            && self.extras.policy() == next.extras.policy()
            && (self.flags ^ next.flags) - VmFlags::ACCESS - VmFlags::STICKY == VmFlags::empty()
            && next.pgoff == self.pgoff_end()
    }
}

impl Span for Vma {
    #[inline]
    fn start(&self) -> Vpn {
        self.start
    }
    #[inline]
    fn end(&self) -> Vpn {
        self.end
    }
    /// The flags: most look-ups want the range and these, and then read no VMA.
    #[inline]
    fn tag(&self) -> u64 {
        self.flags.bits()
    }
}
