//! The reverse map of a memory object: the VMAs that map its pages (`struct address_space`,
//! `i_mmap`).

use super::{
    after_walks::{after_walks, has_tree_locked},
    exported::ExportOrder,
    new_place::NewPlace,
    owner::{Folio, FrameOwner, VisitPage, VisitPart},
    registry::Registry,
    target::{EvenCows, MappedAt, RmapCx, VmaPlacement},
    tree::{Frozen, RmapTree, SeqCell, each_page},
};
use crate::{
    addr::{Pfn, VpnRange},
    ctx::{Below, CallCx, Cx, FolioCx, Sleepable, rank},
    error::NoMemory,
    frame::{FrameLock, Large, Owner, OwnerId, PhysMem},
    sync::{AtomicBool, OnceLock, Ordering},
};
use std::{
    fmt,
    ops::Range,
    sync::{Arc, Weak},
};

/// The reverse map of a memory object. Every [`MemoryObject`](crate::file::MemoryObject) has one.
pub struct Mapping {
    id: OwnerId,
    registry: Arc<Registry>,
    tree: RmapTree,
    keeper: OnceLock<Weak<dyn PageKeeper>>,
    /// The pages are kept from reclaim (`AS_UNEVICTABLE`).
    unevictable: AtomicBool,
}

/// The cache that keeps the pages of an object, as reclaim and migration use it.
///
/// The defaults are those of a cache whose pages stay in memory, each alone.
pub(crate) trait PageKeeper: Send + Sync {
    /// Returns the folio of page `index`; `None` if the page is alone, or part of a huge page.
    fn folio(&self, index: u64) -> Option<Folio> {
        let _unused = index;
        None
    }
    /// Returns the first page in the range that the object has, in memory or in swap.
    fn first_page(&self, pages: Range<u64>) -> Option<u64> {
        let _unused = pages;
        None
    }
    /// Notes that the huge page, or the folio, that page `index` is part of was split into single
    /// pages.
    fn forget_folio(&self, index: u64) {
        let _unused = index;
    }
    /// Gives up page `index`, whose locked frame nothing maps any more: to swap, or because the
    /// store has it. Returns false if the page stays.
    fn evict(&self, locked: &FrameLock<'_>, index: u64) -> bool {
        let _unused = (locked, index);
        false
    }
    /// Writes page `index`, whose locked frame is dirty and nothing maps, to its store. Returns
    /// true if that succeeded.
    fn write_back(&self, cx: &mut FolioCx<'_>, locked: &FrameLock<'_>, index: u64) -> bool {
        let _unused = (cx, locked, index);
        false
    }
    /// Reads every page back that is in swap, and frees its slot.
    fn bring_back(&self, cx: &mut CallCx<'_>) -> Result<(), NoMemory> {
        let _unused = cx;
        Ok(())
    }
    /// Takes as many frames from `new` on for the pages from `first` on, in place of the locked
    /// frames. Returns false, and changes nothing, if one of these has other references.
    fn replace(&self, locked: &[FrameLock<'_>], first: u64, new: Pfn) -> bool;
}

impl Mapping {
    pub(crate) fn new(registry: &Arc<Registry>) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            id: registry.add(Weak::<Self>::clone(me)),
            registry: Arc::clone(registry),
            tree: RmapTree::new(),
            keeper: OnceLock::new(),
            unevictable: AtomicBool::new(false),
        })
    }
    /// Returns the owner to note in a frame that is page `index` of the object.
    pub(crate) fn owner(&self, index: u64) -> Owner {
        Owner { id: self.id, index }
    }
    /// Installs the cache that keeps the pages; the first one stays.
    pub(crate) fn set_keeper(&self, keeper: Weak<dyn PageKeeper>) {
        let _first = self.keeper.set(keeper);
    }
    /// Keeps the pages from reclaim, or lets it have them (`mapping_set_unevictable`).
    pub(crate) fn set_unevictable(&self, is: bool) {
        self.unevictable.store(is, Ordering::Release);
    }
    /// Returns true if the pages are kept from reclaim.
    pub(crate) fn keeps_pages(&self) -> bool {
        self.unevictable.load(Ordering::Acquire)
    }
    fn keeper(&self) -> Option<Arc<dyn PageKeeper>> {
        self.keeper.get().and_then(Weak::upgrade)
    }
    /// Returns the first page in the range that the cache of the object has, in memory or in swap.
    pub(crate) fn first_page(&self, pages: Range<u64>) -> Option<u64> {
        self.keeper()?.first_page(pages)
    }
    pub(crate) fn is_on(&self, registry: &Arc<Registry>) -> bool {
        Arc::ptr_eq(&self.registry, registry)
    }
    /// Returns the number of VMAs that map a part of the object. Waits for nothing.
    pub fn vmas(&self) -> usize {
        self.tree.len()
    }
    /// Returns true if a VMA covers page `index`. Waits for walks of the reverse map, in which
    /// drivers are called: the token says that this is none of these calls.
    pub fn covers<R: Below<rank::Rmap>>(&self, cx: &mut Cx<'_, R, Sleepable>, index: u64) -> bool {
        let _unused = cx;
        self.tree.maps(index, index.saturating_add(1))
    }
    /// Drops every mapping of pages `[from, to)` (`unmap_mapping_pages`).
    ///
    /// The VMAs come in the order of their page offsets. For each of them a window is opened over
    /// the part that covers the pages, even if nothing is mapped there.
    pub fn unmap<R: Below<rank::Rmap>>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        from: u64,
        to: u64,
        cows: EvenCows,
    ) {
        self.unmap_while(cx, (from, to), cows, || true);
    }
    /// Drops every mapping of one page, whose frame is locked, at the places where the frame is
    /// really mapped.
    pub(crate) fn unmap_frame(&self, mem: &PhysMem, cx: &mut FolioCx<'_>, index: u64, pfn: Pfn) {
        let exports = &self.registry.exports;
        exports.notify_in_turn(mem, cx, pfn, ExportOrder::BeforeRmaps);
        self.walk(cx.descend(), index, pfn, &mut |cx, spot| {
            spot.space.unmap_frame(cx, spot, pfn);
            true
        });
        exports.notify_in_turn(mem, cx, pfn, ExportOrder::AfterRmaps);
    }
    /// Takes the right to write from every mapping of a page. Returns true if a mapping had it, or
    /// was dirty (`folio_mkclean`).
    pub(crate) fn write_protect(
        &self,
        mem: &PhysMem,
        cx: &mut FolioCx<'_>,
        index: u64,
        pfn: Pfn,
    ) -> bool {
        let exports = &self.registry.exports;
        exports.notify_in_turn(mem, cx, pfn, ExportOrder::BeforeRmaps);
        let mut dirty = false;
        self.walk(cx.descend(), index, pfn, &mut |cx, spot| {
            dirty |= spot.space.write_protect(cx, spot, pfn);
            true
        });
        exports.notify_in_turn(mem, cx, pfn, ExportOrder::AfterRmaps);
        dirty
    }
    /// Returns true if this thread is in a walk of a reverse map, or keeps walks out.
    pub(crate) fn is_locked_here(&self) -> bool {
        has_tree_locked()
    }
    /// Returns true if a shared mapping can write, or become writable (`i_mmap_writable`). The
    /// thread has [no reverse map locked](Self::is_locked_here).
    pub(crate) fn is_writable(&self) -> bool {
        const SHARED_MAYWRITE: u64 = 0x8 | 0x20;
        self.tree.has_with(SHARED_MAYWRITE)
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
}

impl FrameOwner for Mapping {
    fn walk(&self, cx: RmapCx<'_>, index: u64, pfn: Pfn, visit: &mut VisitPage<'_>) {
        self.tree
            .walk(cx, index, index + 1, |cx, spot, _: VpnRange| {
                each_page(cx, spot, pfn, visit)
            });
    }
    fn walk_huge(&self, cx: RmapCx<'_>, pages: (u64, u64), visit: &mut VisitPart<'_>) {
        self.walk_range(cx, pages, visit);
    }
    fn unmap_huge(&self, mem: &PhysMem, cx: RmapCx<'_>, head: Pfn, (from, to): (u64, u64)) {
        self.tree.walk(cx, from, to, |cx, spot, part| {
            match spot.nonlinear {
                true => spot.space.unmap_nonlinear(cx, spot.vma, from, to),
                false => {
                    let _still_mapped = spot.space.split_large(cx, spot, part, Large::huge(head));
                }
            }
            mem.large_mappings(Large::huge(head)) > 0
        });
    }
    fn folio(&self, index: u64) -> Option<Folio> {
        self.keeper()?.folio(index)
    }
    fn unmap_folio(&self, cx: &mut FolioCx<'_>, pages: (u64, u64), mapped: &dyn Fn() -> bool) {
        self.unmap_while(cx, pages, EvenCows::No, mapped);
    }
    fn forget_folio(&self, index: u64) {
        if let Some(keeper) = self.keeper() {
            keeper.forget_folio(index);
        }
    }
    fn is_unevictable(&self) -> bool {
        self.keeps_pages()
    }
    fn evict(&self, locked: &FrameLock<'_>, index: u64) -> bool {
        self.keeper()
            .is_some_and(|keeper| keeper.evict(locked, index))
    }
    fn write_back(&self, cx: &mut FolioCx<'_>, locked: &FrameLock<'_>, index: u64) -> bool {
        self.keeper()
            .is_some_and(|keeper| keeper.write_back(cx, locked, index))
    }
    fn bring_back(&self, cx: &mut CallCx<'_>) -> Result<(), NoMemory> {
        self.keeper().map_or(Ok(()), |keeper| keeper.bring_back(cx))
    }
    fn replace(&self, locked: &[FrameLock<'_>], first: u64, new: Pfn) -> bool {
        self.keeper()
            .is_some_and(|keeper| keeper.replace(locked, first, new))
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

/// A VMA's place in the reverse map of its object. The VMA leaves the map when this is dropped.
pub(crate) struct FileLink {
    mapping: Arc<Mapping>,
    start: u64,
    seq: SeqCell,
    end: u64,
    flags: u64,
    range: VpnRange,
}

impl FileLink {
    /// Enters a VMA, behind all others that start at its page offset.
    pub(crate) fn new(mapping: &Arc<Mapping>, place: &VmaPlacement) -> Self {
        Self::with(mapping, place, mapping.tree.insert_last(place, None))
    }
    /// Enters a forked VMA directly behind its parent's, before all others that start there. So a
    /// walk that looks for the mappings of a page, and stops at the last one, meets the VMAs that
    /// it would meet on Linux.
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
    /// Adds flags to those that walks get with the VMA, until it is entered anew. Takes no lock of
    /// the tree.
    pub(crate) fn add_flags(&self, flags: u64) {
        self.seq.add_flags(flags);
    }
    /// Returns the flags that walks get with the VMA.
    pub(crate) fn flags(&self) -> u64 {
        self.flags | self.seq.flags()
    }
    /// Returns the tree that has the VMA.
    pub(crate) fn tree(&self) -> FileTree {
        FileTree {
            mapping: Arc::clone(&self.mapping),
            start: self.start,
            seq: self.seq.clone(),
        }
    }
    /// Notes the range to which the record leads by now ([`FileTree::lead_to`]).
    pub(crate) fn note_range(&mut self, range: VpnRange) {
        self.range = range;
    }
    /// Enters the new place of a VMA that was moved or resized, behind all others that start at its
    /// page offset.
    pub(crate) fn moved(&mut self, place: &VmaPlacement) {
        let old = Some((self.start, &self.seq));
        self.seq = self.mapping.tree.insert_last(place, old);
        (self.start, self.end) = place.span();
        self.flags = place.flags;
        self.range = place.range;
    }
    /// Follows a change of the VMA: in place, if only its flags changed.
    pub(crate) fn follow(&mut self, place: &VmaPlacement) {
        // The pages that a nonlinear VMA may map do not tell its place.
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

/// The tree of an object that leads to a VMA, and the VMA's record in it. It outlives the VMA.
pub(crate) struct FileTree {
    mapping: Arc<Mapping>,
    start: u64,
    seq: SeqCell,
}

impl FileTree {
    /// Keeps walks out while entries move.
    pub(crate) fn freeze(&self) -> Frozen<'_> {
        self.mapping.tree.freeze()
    }
    /// Lets the record lead to the new place of the VMA.
    pub(crate) fn lead_to(&self, frozen: &mut Frozen<'_>, place: NewPlace) {
        frozen.lead_last(self.start, &self.seq, place.at);
    }
}

impl Drop for FileLink {
    fn drop(&mut self) {
        let (mapping, start, seq) = (Arc::clone(&self.mapping), self.start, self.seq.clone());
        after_walks(move || mapping.tree.remove_at(start, &seq));
    }
}

impl fmt::Debug for FileLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileLink({}, {:?})", self.start, self.seq)
    }
}
