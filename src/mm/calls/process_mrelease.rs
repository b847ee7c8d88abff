//! The memory of a process that is being killed, taken before its own exit: `process_mrelease`, and
//! the kernel's OOM reaper (`__oom_reap_task_mm`).

use crate::mm::{entry::flags::VmFlags, space::Mm, window::Zap};
use crate::{
    addr::{TASK_PAGES, Vpn},
    ctx::CallCx,
    error::ReleaseError,
    notifier::Event,
};

impl Mm {
    /// Frees the private memory of a process that is being killed, from the highest mapping down,
    /// each in a window in which no driver may sleep. Mappings, shared memory and huge pages of the
    /// pool stay until [`exit`](Self::exit). From then on the process cannot fault private memory
    /// in.
    ///
    /// # Errors
    ///
    /// [`ReleaseError`]: a driver would have had to sleep; that mapping keeps its memory, and a
    /// later call may free it.
    pub fn process_mrelease(&self, cx: &mut CallCx<'_>) -> Result<(), ReleaseError> {
        // Exclusively: no fault is under way that has not seen this.
        self.lock_exclusive(cx).layout.released = true;
        let mut g = self.lock_shared(cx);
        let mut refused = None;
        let mut top = Vpn(TASK_PAGES);
        while let Some(vma) = g.layout.vmas.before(top) {
            let (range, flags) = (vma.range(), vma.flags);
            top = range.start();
            if flags.intersects(VmFlags::SHARED | VmFlags::HUGETLB) {
                continue;
            }
            let mut lease = g.lease();
            if flags.contains(VmFlags::LOCKED) {
                lease.again().mark_unevictable(range, false);
            }
            match lease.try_window(range, Event::Unmap) {
                Ok(mut window) => window.zap_whole(range, Zap::Pages),
                Err(_) => refused = refused.or(Some(ReleaseError(top.addr()))),
            }
            lease.settle_exports();
        }
        refused.map_or(Ok(()), Err)
    }
}
