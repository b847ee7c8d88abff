//! The reverse map of a merged page: the places where same-page merging put it
//! (`struct ksm_stable_node`, `rmap_walk_ksm`).
//!
//! The page belongs to no one family of mappings, so each place is kept with its family, in which
//! the copies are found that later forks made.

use super::{
    anon::AnonVma,
    owner::{FrameOwner, VisitPage},
    registry::Registry,
    target::{RmapCx, RmapTarget},
};
use crate::{
    addr::{Pfn, Vpn},
    frame::{MERGED_INDEX, Owner, OwnerId},
    sync::Mutex,
};
use std::sync::{Arc, Weak};

/// The owner of a merged page.
pub(crate) struct MergedPage {
    id: OwnerId,
    registry: Arc<Registry>,
    places: Mutex<Vec<MergedPlace>>,
}

/// A page of an address space that got a merged page (`struct ksm_rmap_item`).
#[derive(Clone)]
pub(crate) struct MergedPlace {
    pub(crate) space: Weak<dyn RmapTarget>,
    /// The family of the VMA.
    pub(crate) node: Arc<AnonVma>,
    pub(crate) at: Vpn,
}

impl MergedPage {
    pub(crate) fn new(registry: &Arc<Registry>) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            id: registry.add(Weak::<Self>::clone(me)),
            registry: Arc::clone(registry),
            places: Mutex::default(),
        })
    }
    /// Returns the owner to note in the frame.
    pub(crate) fn owner(&self) -> Owner {
        Owner {
            id: self.id,
            index: MERGED_INDEX,
        }
    }
    /// Adds a place, instead of an earlier one at the same page (`stable_tree_append`).
    pub(crate) fn add(&self, place: MergedPlace) {
        let same = |p: &MergedPlace| p.at == place.at && Weak::ptr_eq(&p.space, &place.space);
        let mut places = self.places.lock();
        let gone = places.iter().position(same).map(|i| places.remove(i));
        places.push(place);
        drop(places);
        drop(gone); // The last handle of a family takes the lock of the registry.
    }
}

impl FrameOwner for MergedPage {
    /// Visits the places themselves, the last one first, and after that the copies that forks made
    /// of them.
    fn walk(&self, mut cx: RmapCx<'_>, _: u64, _: Pfn, visit: &mut VisitPage<'_>) {
        let places = self.places.lock().clone();
        for forks in [false, true] {
            for place in places.iter().rev() {
                let is_here = |space: &Arc<dyn RmapTarget>| {
                    std::ptr::addr_eq(Arc::as_ptr(space), place.space.as_ptr())
                };
                let go_on = place
                    .node
                    .walk_page(cx.reborrow(), place.at, &mut |cx, spot| {
                        is_here(spot.space) == forks || visit(cx, spot)
                    });
                if !go_on {
                    return;
                }
            }
        }
    }
}

impl Drop for MergedPage {
    fn drop(&mut self) {
        self.registry.remove(self.id);
    }
}
