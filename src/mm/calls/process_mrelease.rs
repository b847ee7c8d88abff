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
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::{FaultError, PAGE_SIZE, mm::MmapArgs};
    /// # let machine = emmu::Machine::new(Default::default());
    /// # let mut thread = machine.enter()?;
    /// # let mut cx = thread.cx();
    /// # let mm = emmu::Mm::new(&machine);
    ///
    /// let at = mm.mmap(&mut cx, &MmapArgs::anonymous(PAGE_SIZE))?;
    /// mm.store(&mut cx, at, 1)?;
    /// mm.process_mrelease(&mut cx)?;
    /// assert_eq!(machine.mem().in_use(), 0);
    /// assert_eq!(mm.load(&mut cx, at), Err(FaultError::Released(at)));
    /// mm.exit(&mut cx);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn process_mrelease(&self, cx: &mut CallCx<'_>) -> Result<(), ReleaseError> {
        // Exclusively: no fault is under way that has not seen this.
        self.lock_exclusive(cx).layout.released = true;
        let mut g = self.lock_shared(cx);
        let mut refused = None;
        let mut top = Vpn(TASK_PAGES);
        while let Some(vma) = g.layout.vmas.before(top) {
            let (range, flags, marks) = (vma.range(), vma.flags, vma.zap_marks());
            top = range.start();
            if flags.intersects(VmFlags::SHARED | VmFlags::HUGETLB) {
                continue;
            }
            let mut lease = g.lease();
            if flags.contains(VmFlags::LOCKED) {
                lease.again().mark_unevictable(range, false);
            }
            match lease.try_window(range, Event::Unmap) {
                Ok(mut window) => {
                    let whole = window.zap_whole(range, Zap::Pages(marks));
                    debug_assert!(whole, "a huge page lies in one mapping");
                }
                Err(_) => refused = refused.or(Some(ReleaseError(top.addr()))),
            }
            lease.settle_exports();
        }
        refused.map_or(Ok(()), Err)
    }
}
