//! `MADV_WILLNEED`: objects bring in what they have elsewhere.

use crate::ctx::CallCx;
use crate::mm::{
    calls::vma_walk::{Visit, each_vma, part_at},
    space::Mm,
};
use crate::{addr::VpnRange, error::MadviseError};
use std::sync::Arc;

impl Mm {
    /// VMA by VMA; the mmap lock is let go while the object reads (`madvise_willneed`). Nothing is mapped by it, and what
    /// lies in swap for this process alone comes when it is used.
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
