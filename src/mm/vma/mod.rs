//! A VMA: a range of pages with one set of rights, one object behind it and one place in the anonymous family.

pub(in crate::mm) mod layout;
pub(in crate::mm) mod tree;

use super::{entry::flags::VmFlags, vma::tree::Span};
use crate::{
    addr::{Vpn, VpnRange},
    file::{File, MemoryObject, same_file},
    rmap::{AnonLink, AnonVma, FileLink, Frozen, Mapping, RmapTarget, VmaPlacement},
    sync::OnceLock,
};
use smallvec::SmallVec;
use std::sync::{Arc, Weak};

/// Of a VMA of an object, in its reverse map: private pages of it were written (`vma->anon_vma`).
pub(super) const WRITTEN: VmFlags = VmFlags::from_bits_retain(1 << 63);

/// One mapping. Its fields change only under the mmap lock held for writing, but for `anon`, which the first write
/// fault sets once under the lock held for reading.
#[derive(Debug)]
pub(super) struct Vma {
    start: Vpn,
    end: Vpn,
    /// Page offset of `start`: into the object, or for private anonymous memory the page number at which it was
    /// mapped. Linear within the VMA.
    pub(super) pgoff: u64,
    pub(super) flags: VmFlags,
    /// None: private anonymous memory.
    pub(super) file: Option<Arc<File>>,
    /// Its place in the reverse map of the object, once it is in the layout.
    file_link: Option<FileLink>,
    /// Unset until the first private page is written ("unfaulted").
    pub(super) anon: OnceLock<AnonLink>,
    /// What the program calls this memory; memory of different names does not merge.
    pub(super) label: Option<Arc<str>>,
}

impl Vma {
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
            label: None,
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
    /// Moves both ends, the page offset with the start (`vma_set_range`).
    pub(super) fn set_range(&mut self, range: VpnRange, pgoff: u64) {
        self.start = range.start();
        self.end = range.end();
        self.pgoff = pgoff;
    }
    /// Page offset of `at`, which lies inside.
    pub(super) fn pgoff_at(&self, at: Vpn) -> u64 {
        self.pgoff + (at.0 - self.start.0)
    }
    /// Page offset that a VMA starting right behind this one must have to continue it.
    #[inline]
    pub(super) fn pgoff_end(&self) -> u64 {
        self.pgoff.wrapping_add(self.pages())
    }
    #[inline]
    pub(super) fn is_anonymous(&self) -> bool {
        self.file.is_none()
    }
    #[inline]
    pub(super) fn anon_node(&self) -> Option<&Arc<AnonVma>> {
        self.anon.get().map(AnonLink::node)
    }
    /// Same in everything but the place: what a split or a copy starts from (`vm_area_dup`, `anon_vma_clone`).
    pub(super) fn dup(&self, range: VpnRange, pgoff: u64) -> Self {
        let mut dup = Self::new(range, pgoff, self.flags, self.file.clone());
        dup.label.clone_from(&self.label);
        if let Some(link) = self.anon.get() {
            let _fresh = dup.anon.set(link.clone());
        }
        dup
    }
    pub(super) fn object(&self) -> Option<&Arc<dyn MemoryObject>> {
        self.file.as_ref().map(|f| f.object())
    }
    /// A private page of it is being written: the reverse map of its object knows.
    pub(super) fn note_written(&self) {
        if let Some(link) = &self.file_link {
            link.add_flags(WRITTEN.bits());
        }
    }
    /// Where it lies, for the reverse maps.
    pub(super) fn place(&self, space: &Weak<dyn RmapTarget>) -> VmaPlacement {
        VmaPlacement {
            space: space.clone(),
            range: self.range(),
            pgoff: self.pgoff,
            flags: match self.file.is_some() && self.anon.get().is_some() {
                true => self.flags.bits() | WRITTEN.bits(),
                false => self.flags.bits(),
            },
            nonlinear: self.flags.contains(VmFlags::NONLINEAR),
        }
    }
    /// A forked VMA enters the reverse map of its object behind its parent's.
    pub(super) fn follow_parent(&mut self, parent: &Self, space: &Weak<dyn RmapTarget>) {
        if let Some(link) = &parent.file_link {
            let place = self.place(space);
            self.file_link = Some(link.fork(&place));
        }
    }
    /// Enters into the reverse maps where it lies now.
    pub(super) fn follow(&mut self, space: &Weak<dyn RmapTarget>) {
        if self.file.is_none() && self.anon.get().is_none() {
            return;
        }
        let place = self.place(space);
        self.follow_as(&place);
    }
    /// The same for where it is about to lie: before its neighbour gives the place up, so that a walk never misses
    /// a page between the two.
    pub(super) fn follow_as(&mut self, place: &VmaPlacement) {
        match (&mut self.file_link, &self.file) {
            (Some(link), _) => link.follow(place),
            (None, Some(file)) => {
                self.file_link = Some(FileLink::new(file.mapping(), place));
            }
            (None, None) => {}
        }
        if let Some(link) = self.anon.get_mut() {
            link.follow(place);
        }
    }
    /// Its reverse maps.
    pub(super) fn walks(&self) -> Walks {
        Walks {
            object: self.file.as_ref().map(|f| Arc::clone(f.mapping())),
            anon: self.anon.get().cloned(),
        }
    }
    /// `vma_supports_mlock`: special and droppable memory is never locked.
    pub(super) fn may_be_locked(&self) -> bool {
        !self.flags.intersects(VmFlags::SPECIAL | VmFlags::DROPPABLE)
    }
    /// `VM_SEALED`.
    pub(super) fn is_sealed(&self) -> bool {
        self.flags.contains(VmFlags::SEALED)
    }
    /// May the neighbours `self` and `next` share an anon_vma? They may differ in what mprotect can change.
    pub(super) fn anon_compatible(&self, next: &Self) -> bool {
        self.end == next.start
            && same_file(self.file.as_ref(), next.file.as_ref())
            && (self.flags ^ next.flags) - VmFlags::ACCESS - VmFlags::STICKY == VmFlags::empty()
            && next.pgoff == self.pgoff_end()
    }
}

/// The reverse maps that lead to a VMA, also when it is gone.
pub(super) struct Walks {
    object: Option<Arc<Mapping>>,
    anon: Option<AnonLink>,
}

impl Walks {
    /// Keeps walks over them out.
    pub(super) fn freeze(&self) -> SmallVec<[Frozen<'_>; 4]> {
        let object = self.object.iter().map(|mapping| mapping.freeze());
        let anon = self.anon.as_ref().map(AnonLink::freeze);
        object.chain(anon.into_iter().flatten()).collect()
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
    /// The flags: together with the range what most who look a VMA up want.
    #[inline]
    fn tag(&self) -> u64 {
        self.flags.bits()
    }
}
