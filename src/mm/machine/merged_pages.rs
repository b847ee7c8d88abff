//! The merged pages of a machine, each with its reverse map.

use crate::{
    addr::Pfn,
    frame::{OwnerId, PhysMem},
    rmap::MergedPage,
    sync::{AtomicBool, Mutex, Ordering},
};
use std::{collections::HashMap, fmt, sync::Arc};

/// The reverse maps of merged pages, and the frame of each.
#[derive(Default)]
pub(in crate::mm) struct MergedPages {
    pages: Mutex<HashMap<OwnerId, (Pfn, Arc<MergedPage>)>>,
    /// A page was merged once. Set while the mapping cannot be moved, so a call that moves it sees
    /// it.
    any: AtomicBool,
}

impl MergedPages {
    /// Returns true if there may be merged pages.
    pub(in crate::mm) fn any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }
    /// Adds the reverse map of a frame.
    pub(in crate::mm) fn add(&self, pfn: Pfn, page: Arc<MergedPage>) {
        self.any.store(true, Ordering::Relaxed);
        self.pages.lock().insert(page.owner().id, (pfn, page));
    }
    /// Returns the reverse map with this number; `None` if it is none of a merged page.
    pub(in crate::mm) fn find(&self, id: OwnerId) -> Option<Arc<MergedPage>> {
        self.pages.lock().get(&id).map(|(_, page)| Arc::clone(page))
    }
    /// Notes that the page went to another frame, if the number is that of a merged page.
    pub(in crate::mm) fn moved(&self, id: OwnerId, to: Pfn) {
        if let Some((pfn, _)) = self.pages.lock().get_mut(&id) {
            *pfn = to;
        }
    }
    /// Drops the reverse maps of pages that were given back.
    pub(in crate::mm) fn prune(&self, mem: &PhysMem) {
        let mut gone = Vec::new();
        self.pages.lock().retain(|&id, (pfn, page)| {
            let lives = mem.refcount(*pfn) > 0 && mem.owner(*pfn).is_some_and(|o| o.id == id);
            if !lives {
                gone.push(Arc::clone(page));
            }
            lives
        });
        drop(gone); // Takes the lock of the registry.
    }
}

impl fmt::Debug for MergedPages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().finish_non_exhaustive()
    }
}
