//! `msync`: writes stores to shared mappings back to the object's storage.

use super::vma_walk::{Visit, each_vma, part_at};
use crate::mm::{
    entry::flags::{MsyncFlags, VmFlags},
    space::Mm,
    vma::Vma,
};
use crate::{
    addr::{PAGE_SIZE, Vpn, VpnRange},
    ctx::CallCx,
    error::{ByteRange, MsyncError},
    file::File,
    trace,
};
use std::sync::Arc;

impl Mm {
    /// Writes back the dirty pages of the objects that are mapped shared in `[addr, addr + len)`,
    /// with `SYNC`. Each page is write-protected first in every mapping, each in a window, so that
    /// the next store faults. Memory without storage has nothing to write.
    ///
    /// # Errors
    ///
    /// [`MsyncError`]; a hole is reported at the end, an object's error at once.
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::file::{DiskFile, File, FileMode, MemStore};
    /// use emmu::{PAGE_SIZE, mm::{MmapArgs, MsyncFlags}};
    /// # let machine = emmu::Machine::new(Default::default());
    /// # let mut thread = machine.enter()?;
    /// # let mut cx = thread.cx();
    /// # let mm = emmu::Mm::new(&machine);
    ///
    /// let store = Box::new(MemStore::default());
    /// let disk = DiskFile::new(machine.host(), "/data", PAGE_SIZE, store)?;
    /// let file = File::open(disk.clone(), FileMode::ReadWrite);
    /// let at = mm.mmap(&mut cx, &MmapArgs::anonymous(PAGE_SIZE).file(&file, 0).shared())?;
    /// mm.store(&mut cx, at, 7)?;
    /// assert_eq!(disk.dirty(), 1);
    /// mm.msync(&mut cx, at, PAGE_SIZE, MsyncFlags::SYNC)?;
    /// assert_eq!(disk.dirty(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn msync(
        &self,
        cx: &mut CallCx<'_>,
        addr: u64,
        len: u64,
        flags: MsyncFlags,
    ) -> Result<(), MsyncError> {
        let _call = trace::call("msync", addr, len);
        let Some(range) = check_args(addr, len, flags)? else {
            return Ok(());
        };
        each_vma(range, MsyncError::Hole, |at| {
            let g = self.lock_shared_over(cx, Some(range));
            let vma = g.layout.vmas.find(at).filter(|v| v.start() < range.end());
            let (vma, part) = match part_at(vma, at, range) {
                Ok(found) => found,
                Err(visit) => return Ok(visit),
            };
            if flags.contains(MsyncFlags::INVALIDATE) && vma.flags.contains(VmFlags::LOCKED) {
                return Err(MsyncError::Locked(vma.start().addr()));
            }
            let pages = match vma.flags.contains(VmFlags::NONLINEAR) {
                true => (0, u64::MAX),
                false => (vma.pgoff_at(at), vma.pgoff_at(at) + part.pages()),
            };
            let file = flags.contains(MsyncFlags::SYNC).then(|| shared_file(vma));
            let (start, end) = (vma.start(), vma.end());
            // Writeback finds every mapping through the reverse map, this one among them, with
            // locks of its own: the mmap lock must be free.
            drop(g);
            if let Some(file) = file.flatten() {
                file.object()
                    .sync(cx.reborrow(), pages.0, pages.1)
                    .map_err(|why| MsyncError::Object {
                        at: start.addr(),
                        why,
                    })?;
            }
            Ok(Visit::Done(end))
        })
    }
}

fn check_args(addr: u64, len: u64, flags: MsyncFlags) -> Result<Option<VpnRange>, MsyncError> {
    if !MsyncFlags::all().contains(flags) || flags.contains(MsyncFlags::ASYNC | MsyncFlags::SYNC) {
        return Err(MsyncError::Flags(flags.bits()));
    }
    if !addr.is_multiple_of(PAGE_SIZE) {
        return Err(MsyncError::Unaligned(addr));
    }
    // A length that wraps when rounded up is 0, as on Linux.
    let rounded = len.wrapping_add(PAGE_SIZE - 1) & !(PAGE_SIZE - 1);
    let end = addr
        .checked_add(rounded)
        .ok_or(MsyncError::Wraps(ByteRange { addr, len }))?;
    Ok(VpnRange::new(Vpn::containing(addr), Vpn::containing(end)))
}

fn shared_file(vma: &Vma) -> Option<Arc<File>> {
    vma.file
        .as_ref()
        .filter(|_| vma.flags.contains(VmFlags::SHARED))
        .map(Arc::clone)
}
