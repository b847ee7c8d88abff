//! `MADV_WILLNEED`: objects bring in what they have elsewhere.

use crate::ctx::CallCx;
use crate::mm::space::Mm;
use crate::{
    addr::{Vpn, VpnRange},
    error::MadviseError,
};
use std::sync::Arc;

impl Mm {
    /// VMA by VMA; the mmap lock is let go while the object reads (`madvise_willneed`). Nothing is mapped by it, and what
    /// lies in swap for this process alone comes when it is used.
    pub(in crate::mm) fn advise_will_need(
        &self,
        cx: &mut CallCx<'_>,
        range: VpnRange,
    ) -> Result<(), MadviseError> {
        let mut hole = None;
        let mut at = range.start();
        while at < range.end() {
            let g = self.lock_shared_over(cx, Some(range));
            let vma = g.layout.vmas.find(at).filter(|v| v.start() < range.end());
            let Some(vma) = vma else {
                return Err(MadviseError::Hole(at.addr()));
            };
            if vma.start() > at {
                hole.get_or_insert(at);
                at = vma.start();
            }
            let end = vma.end().min(range.end());
            let from = vma.pgoff_at(at);
            let file = vma.file.as_ref().map(Arc::clone);
            drop(g);
            if let Some(file) = file {
                let object = file.object();
                object.will_need(cx.reborrow(), from, from + (end.0 - at.0));
            }
            at = end;
        }
        hole.map_or(Ok(()), |at: Vpn| Err(MadviseError::Hole(at.addr())))
    }
}
