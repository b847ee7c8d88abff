//! Devices without pages of their own: `/dev/zero`, and files that nothing can map.

use super::{Host, Mappable, MemoryObject, PageRequest};
use crate::{
    ctx::{CallCx, FaultCx},
    error::ObjectError,
    frame::Frame,
    rmap::Mapping,
};
use std::{borrow::Cow, sync::Arc};

/// A device, or another file without pages.
#[derive(Debug)]
pub struct DeviceFile {
    name: Box<str>,
    mapping: Arc<Mapping>,
    shows: Mappable,
}

impl DeviceFile {
    /// Returns `/dev/zero`.
    pub fn zero(host: &Host) -> Arc<Self> {
        Self::new(host, "/dev/zero", Mappable::Zeros)
    }
    /// Returns a file that cannot be mapped: a directory, a pipe, most devices.
    pub fn unmappable(host: &Host, name: &str) -> Arc<Self> {
        Self::new(host, name, Mappable::No)
    }
    fn new(host: &Host, name: &str, shows: Mappable) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            mapping: host.mapping(),
            shows,
        })
    }
}

impl MemoryObject for DeviceFile {
    fn name(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.name)
    }
    fn mapping(&self) -> &Arc<Mapping> {
        &self.mapping
    }
    fn size(&self) -> u64 {
        0
    }
    fn page(&self, _: FaultCx<'_>, index: u64, _: &PageRequest) -> Result<Frame<'_>, ObjectError> {
        Err(ObjectError::Beyond(index))
    }
    fn resident(&self, _: u64) -> Option<Frame<'_>> {
        None
    }
    fn read_at(&self, _: CallCx<'_>, _: u64, out: &mut [u8]) -> Result<usize, ObjectError> {
        if self.shows != Mappable::Zeros {
            return Err(ObjectError::Unsupported);
        }
        out.fill(0);
        Ok(out.len())
    }
    fn mappable(&self) -> Mappable {
        self.shows
    }
}
