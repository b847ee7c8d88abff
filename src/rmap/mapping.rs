//! The reverse map of a memory object: which VMAs map which of its pages (`struct address_space`, `i_mmap`).

use super::{
    exported::ExportOrder,
    owner::{FrameOwner, VisitPage},
    registry::Registry,
    target::{EvenCows, RmapCx, VmaPlacement},
    tree::{Frozen, RmapTree, SeqCell, each_page},
};
use crate::ctx::FolioCx;

use crate::{
    addr::{Pfn, VpnRange},
    ctx::{Below, Cx, Sleepable, rank},
    frame::{Frame, FrameLock, Owner, OwnerId, PhysMem},
    sync::OnceLock,
};
use std::{
    fmt,
    sync::{Arc, Weak},
};

/// Who maps an object. Every [`MemoryObject`](crate::file::MemoryObject) has one.
pub struct Mapping {
    id: OwnerId,
    registry: Arc<Registry>,
    tree: RmapTree,
    evict: OnceLock<Weak<dyn Evict>>,
}

/// What reclaim asks of whoever keeps the pages of an object.
pub(crate) trait Evict: Send + Sync {
    /// Gives up page `index`, whose locked frame nothing maps any more: to swap, or because the store has it. Says
    /// whether it did; if not, the page stays.
    fn evict(&self, locked: &FrameLock<'_>, index: u64) -> bool;
    /// Writes a dirty page `index`, whose locked frame nothing maps, to its store. Says whether it did.
    fn write_back(&self, cx: &mut FolioCx<'_>, locked: &FrameLock<'_>, index: u64) -> bool;
    /// Takes `new` for page `index` instead of the locked frame, unless somebody else holds that. Says whether it did.
    fn replace(&self, locked: &FrameLock<'_>, index: u64, new: &Frame<'_>) -> bool;
}

impl Mapping {
    pub(crate) fn new(registry: &Arc<Registry>) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            id: registry.add(Weak::<Self>::clone(me)),
            registry: Arc::clone(registry),
            tree: RmapTree::new(),
            evict: OnceLock::new(),
        })
    }
    /// What a frame that is page `index` of the object says of its owner.
    pub(crate) fn owner(&self, index: u64) -> Owner {
        Owner { id: self.id, index }
    }
    /// Says who keeps the pages, once.
    pub(crate) fn set_keeper(&self, keeper: Weak<dyn Evict>) {
        let _first = self.evict.set(keeper);
    }
    fn keeper(&self) -> Option<Arc<dyn Evict>> {
        self.evict.get().and_then(Weak::upgrade)
    }
    pub(crate) fn is_on(&self, registry: &Arc<Registry>) -> bool {
        Arc::ptr_eq(&self.registry, registry)
    }
    /// VMAs that map a part of the object.
    pub fn vmas(&self) -> usize {
        self.tree.len()
    }
    /// Whether a VMA covers page `index`.
    pub fn covers(&self, index: u64) -> bool {
        self.tree.maps(index, index + 1)
    }
    /// Drops every mapping of pages `[from, to)`, VMA by VMA in the order of their page offsets, each in a window over
    /// the part concerned, whether or not something is mapped there (`unmap_mapping_pages`).
    pub fn unmap<R: Below<rank::Rmap>>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        from: u64,
        to: u64,
        cows: EvenCows,
    ) {
        self.tree.walk(cx.descend(), from, to, |cx, spot, part| {
            match spot.nonlinear {
                Some(vma) => spot.space.unmap_nonlinear(cx, vma, from, to),
                None => spot.space.unmap_range(cx, part, cows),
            }
            true
        });
    }
    /// Drops every mapping of one page, whose frame is locked, wherever it is really mapped.
    pub(crate) fn unmap_frame(&self, mem: &PhysMem, cx: &mut FolioCx<'_>, index: u64, pfn: Pfn) {
        let exports = &self.registry.exports;
        exports.tell(mem, cx, pfn, ExportOrder::BeforeRmaps);
        self.walk(cx.descend(), index, pfn, &mut |cx, spot| {
            spot.space.unmap_frame(cx, spot, pfn);
            true
        });
        exports.tell(mem, cx, pfn, ExportOrder::AfterRmaps);
    }
    /// Takes the right to write from every mapping of a page; says whether one had it (`folio_mkclean`).
    pub(crate) fn write_protect(
        &self,
        mem: &PhysMem,
        cx: &mut FolioCx<'_>,
        index: u64,
        pfn: Pfn,
    ) -> bool {
        let exports = &self.registry.exports;
        exports.tell(mem, cx, pfn, ExportOrder::BeforeRmaps);
        let mut dirty = false;
        self.walk(cx.descend(), index, pfn, &mut |cx, spot| {
            dirty |= spot.space.write_protect(cx, spot, pfn);
            true
        });
        exports.tell(mem, cx, pfn, ExportOrder::AfterRmaps);
        dirty
    }
    /// Keeps walks out while entries move.
    pub(crate) fn freeze(&self) -> Frozen<'_> {
        self.tree.freeze()
    }
}

impl FrameOwner for Mapping {
    fn walk(&self, cx: RmapCx<'_>, index: u64, pfn: Pfn, visit: &mut VisitPage<'_>) {
        self.tree
            .walk(cx, index, index + 1, |cx, spot, _: VpnRange| {
                each_page(cx, spot, pfn, visit)
            });
    }
    fn evict(&self, locked: &FrameLock<'_>, index: u64) -> bool {
        self.keeper()
            .is_some_and(|keeper| keeper.evict(locked, index))
    }
    fn write_back(&self, cx: &mut FolioCx<'_>, locked: &FrameLock<'_>, index: u64) -> bool {
        self.keeper()
            .is_some_and(|keeper| keeper.write_back(cx, locked, index))
    }
    fn replace(&self, locked: &FrameLock<'_>, index: u64, new: &Frame<'_>) -> bool {
        self.keeper()
            .is_some_and(|keeper| keeper.replace(locked, index, new))
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        self.registry.remove(self.id);
    }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapping")
            .field("vmas", &self.vmas())
            .finish_non_exhaustive()
    }
}

/// A VMA's place in the map of its object; leaves it when dropped.
pub(crate) struct FileLink {
    mapping: Arc<Mapping>,
    start: u64,
    seq: SeqCell,
    end: u64,
    flags: u64,
    range: VpnRange,
}

impl FileLink {
    /// Enters a VMA.
    pub(crate) fn new(mapping: &Arc<Mapping>, place: &VmaPlacement) -> Self {
        Self::with(mapping, place, mapping.tree.insert_last(place, None))
    }
    /// Enters a forked VMA: directly behind its parent's, before all others that start there. So who walks to find all
    /// mappings of a page, and stops at the last one, meets the same VMAs as on Linux.
    pub(crate) fn fork(&self, place: &VmaPlacement) -> Self {
        let seq = match place.span().0 == self.start {
            true => self.mapping.tree.insert_after(place, &self.seq),
            false => self.mapping.tree.insert_last(place, None),
        };
        Self::with(&self.mapping, place, seq)
    }
    fn with(mapping: &Arc<Mapping>, place: &VmaPlacement, seq: SeqCell) -> Self {
        let (start, end) = place.span();
        Self {
            mapping: Arc::clone(mapping),
            start,
            seq,
            end,
            flags: place.flags,
            range: place.range,
        }
    }
    /// The VMA lies elsewhere now, or covers more or less: it goes to the end of those that start where it does.
    pub(crate) fn moved(&mut self, place: &VmaPlacement) {
        let old = Some((self.start, &self.seq));
        self.seq = self.mapping.tree.insert_last(place, old);
        (self.start, self.end) = place.span();
        self.flags = place.flags;
        self.range = place.range;
    }
    /// Follows the VMA: in place if only its flags are others.
    pub(crate) fn follow(&mut self, place: &VmaPlacement) {
        // The pages that a nonlinear VMA may map do not tell where it lies.
        let lies_elsewhere = place.nonlinear && self.range != place.range;
        if lies_elsewhere || (self.start, self.end) != place.span() {
            self.moved(place);
        } else if self.flags != place.flags {
            let tree = &self.mapping.tree;
            tree.set_flags_at(self.start, &self.seq, place.flags);
            self.flags = place.flags;
        }
    }
}

impl Drop for FileLink {
    fn drop(&mut self) {
        self.mapping.tree.remove_at(self.start, &self.seq);
    }
}

impl fmt::Debug for FileLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileLink({}, {:?})", self.start, self.seq)
    }
}
