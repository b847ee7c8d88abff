//! What a machine lends to the objects on it.

use crate::{
    ctx::{Below, Cx, Sleepable, rank},
    frame::{Commit, PhysMem},
    rmap::{Mapping, Registry},
};
use std::sync::Arc;

/// Memory, promises and the register of owners: what an object needs of its machine.
#[derive(Clone, Debug)]
pub struct Host {
    pub(crate) mem: Arc<PhysMem>,
    pub(crate) commit: Arc<Commit>,
    pub(crate) registry: Arc<Registry>,
}

impl Host {
    /// The physical memory.
    pub fn mem(&self) -> &Arc<PhysMem> {
        &self.mem
    }
    /// Tells the drivers of exported frames of those whose mappings went meanwhile, and lets go of these.
    pub(crate) fn settle_exports<R: Below<rank::Folio>>(&self, cx: &mut Cx<'_, R, Sleepable>) {
        self.registry.exports.notify_deferred(&self.mem, cx);
    }
    /// The mapping of a new object.
    pub fn mapping(&self) -> Arc<Mapping> {
        Mapping::new(&self.registry)
    }
}
