//! Memory objects: what stands behind a mapping that is not private anonymous memory.
//!
//! An address space sees an object only through [`MemoryObject`]; an object knows no address space.

mod shmem;

pub use shmem::Shmem;

use crate::{
    error::NoMemory,
    frame::{Frame, PhysMem},
};
use std::{borrow::Cow, fmt, sync::Arc};

/// Something whose pages can be mapped.
///
/// Two mappings are of the same object when their `Arc`s are the same ([`Arc::ptr_eq`]).
pub trait MemoryObject: Send + Sync + fmt::Debug {
    /// The name that `/proc/PID/maps` shows.
    fn name(&self) -> Cow<'_, str>;
    /// Size in pages, a partial last page included. Access at or beyond it is SIGBUS.
    fn pages(&self) -> u64;
    /// The frame of page `index`, made if the object has a hole there.
    ///
    /// # Errors
    ///
    /// [`NoMemory`] when no frame is left.
    fn page<'m>(&self, mem: &'m PhysMem, index: u64) -> Result<Frame<'m>, NoMemory>;
    /// The frame of page `index` if it is in memory now.
    fn resident<'m>(&self, mem: &'m PhysMem, index: u64) -> Option<Frame<'m>>;
}

/// Whether both are the same object, or both none.
pub(crate) fn same_object(
    a: Option<&Arc<dyn MemoryObject>>,
    b: Option<&Arc<dyn MemoryObject>>,
) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        _ => false,
    }
}
