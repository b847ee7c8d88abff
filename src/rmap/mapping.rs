//! The reverse map of a memory object: which VMAs map which of its pages (`struct address_space`, `i_mmap`).

use super::{
    exported::ExportOrder,
    registry::{OwnerRef, Registry},
    space::{EvenCows, MappedAt, RmapCx, VmaPlacement},
    tree::{Frozen, Tree, Turn, each_page},
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
    tree: Tree,
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
            id: registry.add(OwnerRef::Mapping(me.clone())),
            registry: Arc::clone(registry),
            tree: Tree::new(),
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
    /// Asks the keeper to give up a page.
    pub(crate) fn evict(&self, locked: &FrameLock<'_>, index: u64) -> bool {
        let keeper = self.evict.get().and_then(Weak::upgrade);
        keeper.is_some_and(|keeper| keeper.evict(locked, index))
    }
    /// Asks the keeper to write back a page.
    pub(crate) fn write_back(
        &self,
        cx: &mut FolioCx<'_>,
        locked: &FrameLock<'_>,
        index: u64,
    ) -> bool {
        let keeper = self.evict.get().and_then(Weak::upgrade);
        keeper.is_some_and(|keeper| keeper.write_back(cx, locked, index))
    }
    /// Asks the keeper to take another frame for a page.
    pub(crate) fn replace(&self, locked: &FrameLock<'_>, index: u64, new: &Frame<'_>) -> bool {
        let keeper = self.evict.get().and_then(Weak::upgrade);
        keeper.is_some_and(|keeper| keeper.replace(locked, index, new))
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
        let mut unmap = |cx: RmapCx<'_>, spot: &MappedAt<'_>| {
            spot.space.unmap_frame(cx, spot, pfn);
            true
        };
        self.walk(cx.descend(), index, |cx, spot| {
            each_page(cx, spot, pfn, &mut unmap)
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
        let mut protect = |cx: RmapCx<'_>, spot: &MappedAt<'_>| {
            dirty |= spot.space.write_protect(cx, spot, pfn);
            true
        };
        self.walk(cx.descend(), index, |cx, spot| {
            each_page(cx, spot, pfn, &mut protect)
        });
        exports.tell(mem, cx, pfn, ExportOrder::AfterRmaps);
        dirty
    }
    /// Visits every VMA that covers page `index`.
    pub(crate) fn walk(
        &self,
        cx: RmapCx<'_>,
        index: u64,
        mut visit: impl FnMut(RmapCx<'_>, &MappedAt<'_>) -> bool,
    ) {
        self.tree
            .walk(cx, index, index + 1, |cx, spot, _: VpnRange| {
                visit(cx, spot)
            });
    }
    /// Visits the part of each VMA that may map pages `[from, to)`.
    pub(super) fn walk_range(
        &self,
        cx: RmapCx<'_>,
        (from, to): (u64, u64),
        visit: impl FnMut(RmapCx<'_>, &MappedAt<'_>, VpnRange) -> bool,
    ) {
        self.tree.walk(cx, from, to, visit);
    }
    /// Keeps walks out while entries move.
    pub(crate) fn freeze(&self) -> Frozen<'_> {
        self.tree.freeze()
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
    turn: Turn,
    end: u64,
    flags: u64,
    range: VpnRange,
}

impl FileLink {
    /// Enters a VMA.
    pub(crate) fn new(mapping: &Arc<Mapping>, place: &VmaPlacement) -> Self {
        Self::with(mapping, place, mapping.tree.put_last(place, None))
    }
    /// Enters a forked VMA: directly behind its parent's, before all others that start there. So who walks to find all
    /// mappings of a page, and stops at the last one, meets the same VMAs as on Linux.
    pub(crate) fn fork(&self, place: &VmaPlacement) -> Self {
        let turn = match place.span().0 == self.start {
            true => self.mapping.tree.put_behind(place, &self.turn),
            false => self.mapping.tree.put_last(place, None),
        };
        Self::with(&self.mapping, place, turn)
    }
    fn with(mapping: &Arc<Mapping>, place: &VmaPlacement, turn: Turn) -> Self {
        let (start, end) = place.span();
        Self {
            mapping: Arc::clone(mapping),
            start,
            turn,
            end,
            flags: place.flags,
            range: place.range,
        }
    }
    /// Adds flags to those that walks are told of, whoever walks: no lock of the tree is taken.
    pub(crate) fn add_flags(&self, flags: u64) {
        self.turn.add_flags(flags);
    }
    /// The VMA lies elsewhere now, or covers more or less: it goes to the end of those that start where it does.
    pub(crate) fn moved(&mut self, place: &VmaPlacement) {
        let old = Some((self.start, &self.turn));
        self.turn = self.mapping.tree.put_last(place, old);
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
            tree.set_flags_at(self.start, &self.turn, place.flags);
            self.flags = place.flags;
        }
    }
}

impl Drop for FileLink {
    fn drop(&mut self) {
        self.mapping.tree.remove_at(self.start, &self.turn);
    }
}

impl fmt::Debug for FileLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileLink({}, {:?})", self.start, self.turn)
    }
}
