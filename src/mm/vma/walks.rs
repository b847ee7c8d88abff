//! [`Walks`]: the reverse maps that lead to a VMA, kept from walks while its entries move.

use crate::rmap::{AnonLink, AnonTrees, FileLink, FileTree, Frozen, NewPlace};
use smallvec::SmallVec;

/// The reverse maps that lead to a VMA; valid also after the VMA is gone.
pub(in crate::mm) struct Walks {
    object: Option<FileTree>,
    anon: Option<AnonTrees>,
}

impl Walks {
    /// Those of a VMA with these links.
    pub(super) fn of(file: Option<&FileLink>, anon: Option<&AnonLink>) -> Self {
        Self {
            object: file.map(FileLink::tree),
            anon: anon.map(AnonLink::trees),
        }
    }
    /// Waits for the walks over these reverse maps and keeps new ones out until the result is
    /// dropped.
    pub(in crate::mm) fn freeze(&self) -> FrozenWalks<'_> {
        FrozenWalks {
            object: self.object.as_ref().map(|tree| (tree, tree.freeze())),
            anon: self.anon.as_ref().map(|trees| (trees, trees.freeze())),
        }
    }
}

/// Keeps walks over the reverse maps of a VMA out.
#[must_use]
pub(in crate::mm) struct FrozenWalks<'w> {
    object: Option<(&'w FileTree, Frozen<'w>)>,
    anon: Option<(&'w AnonTrees, SmallVec<[Frozen<'w>; 2]>)>,
}

impl FrozenWalks<'_> {
    /// Lets the records of the VMA lead to its new place, to which its entries have just moved:
    /// walks find the pages by one record, before and after.
    pub(in crate::mm) fn lead_to(&mut self, place: NewPlace) {
        if let Some((tree, frozen)) = &mut self.object {
            tree.lead_to(frozen, place);
        }
        if let Some((trees, frozen)) = &mut self.anon {
            trees.lead_to(frozen, place);
        }
    }
}
