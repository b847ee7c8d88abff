//! `MADV_WILLNEED`: asks objects to read pages into memory ahead of use.

use crate::mm::{
    calls::vma_walk::{Visit, each_vma, part_at},
    space::Mm,
};
use crate::{addr::VpnRange, ctx::CallCx, error::MadviseError};
use std::sync::Arc;

impl Mm {
    /// Asks VMA by VMA, without the mmap lock while the object reads (`madvise_willneed`). Maps
    /// nothing; pages of private memory in swap come back at their use.
    pub(in crate::mm) fn advise_will_need(
        &self,
        cx: &mut CallCx<'_>,
        range: VpnRange,
    ) -> Result<(), MadviseError> {
        each_vma(range, MadviseError::Hole, |at| {
            let g = self.lock_shared_over(cx, Some(range));
            let vma = g.layout.vmas.find(at).filter(|v| v.start() < range.end());
            let (vma, part) = match part_at(vma, at, range) {
                Ok(found) => found,
                Err(visit) => return Ok(visit),
            };
            let from = vma.pgoff_at(at);
            let file = vma.file.as_ref().map(Arc::clone);
            drop(g);
            if let Some(file) = file {
                let object = file.object();
                object.will_need(cx.reborrow(), from, from + part.pages());
            }
            Ok(Visit::Done(part.end()))
        })
    }
}
