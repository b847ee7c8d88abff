//! `MADV_REMOVE`: punches a hole in the object, which every mapping of it loses.

use super::check_sealed;
use crate::mm::{
    calls::vma_walk::{Visit, each_vma, part_at},
    entry::flags::{Advice, VmFlags},
    space::Mm,
    vma::Vma,
};
use crate::{
    addr::{PAGE_SIZE, VpnRange},
    ctx::CallCx,
    error::MadviseError,
    file::File,
};
use std::sync::Arc;

impl Mm {
    /// Punches VMA by VMA, without the mmap lock while the object works (`madvise_remove`).
    pub(in crate::mm) fn advise_remove(
        &self,
        cx: &mut CallCx<'_>,
        range: VpnRange,
    ) -> Result<(), MadviseError> {
        each_vma(range, MadviseError::Hole, |at| {
            let g = self.lock_shared_over(cx, Some(range));
            let (vma, part) = match part_at(g.layout.vmas.find(at), at, range) {
                Ok(found) => found,
                Err(visit) => return Ok(visit),
            };
            let file = removable(vma)?;
            let from = vma.pgoff_at(at) * PAGE_SIZE;
            let start = vma.start();
            vma.tell_removed(part);
            drop(g);
            file.punch_hole(cx.reborrow(), from, part.pages() * PAGE_SIZE)
                .map_err(|why| MadviseError::Object {
                    at: start.addr(),
                    why,
                })?;
            Ok(Visit::Done(part.end()))
        })
    }
}

/// Returns the file to be punched, if the VMA may do that.
fn removable(vma: &Vma) -> Result<Arc<File>, MadviseError> {
    let at = vma.start().addr();
    check_sealed(vma, Advice::Remove)?;
    if vma.device().is_some() && !vma.flags.contains(VmFlags::LOCKED) {
        // The device is a file, and the mapping is private.
        return Err(MadviseError::Denied(at));
    }
    let file = match &vma.file {
        Some(file) if !vma.flags.contains(VmFlags::LOCKED) => file,
        _ => return Err(MadviseError::Unsuitable(at)),
    };
    // The mapping must be shared and may become writable (`vma_is_shared_maywrite`).
    if !vma.flags.contains(VmFlags::SHARED | VmFlags::MAYWRITE) {
        return Err(MadviseError::Denied(at));
    }
    Ok(Arc::clone(file))
}
