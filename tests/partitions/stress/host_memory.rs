//! What threads use of memory at addresses of the host: system calls write it and read it, and fail
//! where the process is refused.

use super::{
    BASE, PAGE, PAGES, World,
    models::{Model, Use},
};
use crate::exporter::skipped::skipped;
use emmu::{
    ctx::CallCx,
    extmmu::{HostMapping, HostMappingError, HostRegion},
};
use std::{fs::File, io::Read, os::unix::net::UnixStream, sync::Arc};
use vm_memory::{Bytes, GuestAddress, GuestRegionCollection};

/// A mapping of all the memory in the host, as guest memory.
pub(super) struct HostMemory(GuestRegionCollection<HostRegion>);

impl HostMemory {
    /// `None` where the host gives no userfaultfd, or one that system calls do not wait for.
    pub(super) fn attach(cx: &mut CallCx<'_>, w: &World) -> Option<Box<dyn Model>> {
        let left_out = |why: &str| skipped("stress of memory at addresses of the host", why);
        let mapping = match HostMapping::new(cx, &w.mm, (BASE, (PAGES * PAGE) as usize)) {
            Err(HostMappingError::NoUserfaultfd(why)) => {
                left_out(&format!("no userfaultfd: {why}"));
                return None;
            }
            other => other.unwrap(),
        };
        if !mapping.serves_kernel() {
            left_out("system calls do not wait for it");
            return None;
        }
        w.oracle.watch(&w.mm, mapping.driver());
        let region = HostRegion::new(Arc::new(mapping), GuestAddress(0), ()).unwrap();
        let memory = GuestRegionCollection::from_regions(vec![region]).unwrap();
        Some(Box::new(Self(memory)))
    }
}

impl Model for HostMemory {
    fn name(&self) -> &'static str {
        "memory of the host"
    }
    fn user(&self, _: &mut CallCx<'_>, _: usize) -> Use<'_> {
        let mut zeros = File::open("/dev/zero").unwrap();
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        Box::new(move |_, turn| {
            let at = GuestAddress(turn.at);
            if turn.writes() {
                return self.0.read_volatile_from(at, &mut zeros, 1).is_ok();
            }
            let sent = self.0.write_volatile_to(at, &mut ours, 1).is_ok();
            if sent {
                theirs.read_exact(&mut [0]).unwrap();
            }
            sent
        })
    }
    fn end(self: Box<Self>, _: &mut CallCx<'_>) {}
}
