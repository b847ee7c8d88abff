//! Which processes hold pages: pinned buffers, open pipes.

use std::collections::{BTreeMap, BTreeSet};

/// The holds of processes.
#[derive(Clone, Debug, Default)]
pub(super) struct Holds {
    /// Processes that have a buffer pinned.
    pub(super) pinned: BTreeSet<u32>,
    /// Open pipes with pages, by process.
    pub(super) pipes: BTreeMap<u32, u32>,
}

impl Holds {
    /// Returns true if no page is held.
    pub(super) fn are_none(&self) -> bool {
        self.pinned.is_empty() && self.have_no_pipes()
    }
    /// Returns true if no pipe has pages.
    pub(super) fn have_no_pipes(&self) -> bool {
        self.pipes.values().all(|&open| open == 0)
    }
    /// A forked process has the pipes of its parent.
    pub(super) fn fork(&mut self, parent: u32, child: u32) {
        let open = self.pipes.get(&parent).copied();
        self.pipes.extend(open.map(|open| (child, open)));
    }
    /// A process that ends closes everything.
    pub(super) fn exit(&mut self, process: u32) {
        self.pinned.remove(&process);
        self.pipes.remove(&process);
    }
}
