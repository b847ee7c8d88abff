//! Shared anonymous memory: an object of fixed size whose pages live in memory alone.

use super::MemoryObject;
use crate::{
    addr::Pfn,
    error::NoMemory,
    frame::{AllocKind, Commit, Frame, PhysMem},
    sync::Mutex,
};
use std::{borrow::Cow, collections::BTreeMap, fmt, sync::Arc};

/// Pages shared by everyone who maps them: what `mmap(MAP_SHARED | MAP_ANONYMOUS)` makes.
///
/// The object owns one reference on each of its frames until it is dropped.
pub struct Shmem {
    name: Box<str>,
    mem: Arc<PhysMem>,
    commit: Arc<Commit>,
    pages: u64,
    /// Promised pages, given back when the object goes; 0 for `MAP_NORESERVE`.
    charged: u64,
    frames: Mutex<BTreeMap<u64, Pfn>>,
}

impl Shmem {
    /// An object of `pages` pages, all holes, that owns a promise of `charged` pages.
    ///
    /// # Errors
    ///
    /// [`NoMemory::Object`]; the promise stays the caller's then.
    pub(crate) fn new(
        mem: &Arc<PhysMem>,
        commit: &Arc<Commit>,
        name: &str,
        pages: u64,
        charged: u64,
    ) -> Result<Arc<Self>, NoMemory> {
        mem.inject()
            .check(AllocKind::Object)
            .map_err(|_| NoMemory::Object)?;
        Ok(Arc::new(Self {
            name: name.into(),
            mem: Arc::clone(mem),
            commit: Arc::clone(commit),
            pages,
            charged,
            frames: Mutex::default(),
        }))
    }
}

impl MemoryObject for Shmem {
    fn name(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.name)
    }
    fn pages(&self) -> u64 {
        self.pages
    }
    fn page<'m>(&self, mem: &'m PhysMem, index: u64) -> Result<Frame<'m>, NoMemory> {
        let mut frames = self.frames.lock();
        if let Some(&pfn) = frames.get(&index) {
            return Ok(mem.get(pfn));
        }
        let frame = mem.alloc().map_err(|_| NoMemory::Frame)?;
        frames.insert(index, frame.clone().into_raw());
        Ok(frame)
    }
    fn resident<'m>(&self, mem: &'m PhysMem, index: u64) -> Option<Frame<'m>> {
        self.frames.lock().get(&index).map(|&pfn| mem.get(pfn))
    }
}

impl fmt::Debug for Shmem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shmem")
            .field("name", &self.name)
            .field("pages", &self.pages)
            .field("resident", &self.frames.lock().len())
            .finish_non_exhaustive()
    }
}

impl Drop for Shmem {
    fn drop(&mut self) {
        let frames = std::mem::take(self.frames.get_mut());
        for pfn in frames.into_values() {
            drop(self.mem.adopt(pfn));
        }
        self.commit.uncharge(self.charged);
    }
}
