//! Objects of a test's own.

use super::World;
use emmu::{
    error::ObjectError,
    file::{FaultCx, File, FileMode, MemoryObject, Want},
    frame::Frame,
    rmap::Mapping,
};
use std::{borrow::Cow, sync::Arc};

/// An object without pages: enough to be refused.
#[derive(Debug)]
pub struct Empty(Arc<Mapping>);

impl MemoryObject for Empty {
    fn name(&self) -> Cow<'_, str> {
        Cow::Borrowed("/empty")
    }
    fn mapping(&self) -> &Arc<Mapping> {
        &self.0
    }
    fn size(&self) -> u64 {
        0
    }
    fn page(&self, _: FaultCx<'_>, index: u64, _: &Want) -> Result<Frame<'_>, ObjectError> {
        Err(ObjectError::Beyond(index))
    }
    fn resident(&self, _: u64) -> Option<Frame<'_>> {
        None
    }
}

/// An open file without pages.
pub fn empty(w: &World) -> Arc<File> {
    let object = Arc::new(Empty(w.machine.host().mapping()));
    File::open(object, FileMode::ReadWrite)
}
