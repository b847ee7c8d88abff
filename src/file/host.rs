//! The parts of a machine that memory objects use.

use crate::{
    ctx::{Below, Cx, Sleepable, rank},
    frame::{Commit, PhysMem},
    rmap::{Mapping, Registry},
};
use std::sync::Arc;

/// The memory, the commit account and the registry of owners of a machine.
#[derive(Clone, Debug)]
pub struct Host {
    pub(crate) mem: Arc<PhysMem>,
    pub(crate) commit: Arc<Commit>,
    pub(crate) registry: Arc<Registry>,
}

impl Host {
    /// Returns the physical memory.
    pub fn mem(&self) -> &Arc<PhysMem> {
        &self.mem
    }
    /// Notifies drivers of the exported frames that lost a mapping meanwhile, and releases these
    /// frames.
    pub(crate) fn settle_exports<R: Below<rank::Folio>>(&self, cx: &mut Cx<'_, R, Sleepable>) {
        self.registry.exports.notify_deferred(&self.mem, cx);
    }
    /// Returns the mapping of a new object.
    pub fn mapping(&self) -> Arc<Mapping> {
        Mapping::new(&self.registry)
    }
}
