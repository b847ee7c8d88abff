//! The limit of memory, as that of a memory control group around all processes of the machine
//! (`memory.limit_in_bytes`).
//!
//! An allocation that would exceed the limit is refused. The operation that wanted it releases its
//! locks, reclaims ([`Machine::make_room`]) and tries again, as `try_charge` does.

use super::Machine;
use crate::{
    ctx::{Below, CallCx, Cx, Sleepable, rank},
    error::{Errno, HasErrno, LimitBusy},
};

impl Machine {
    /// Sets the most pages that frames and page tables may take together; `None` for no limit. Huge
    /// pages of pools do not count.
    /// Reclaims until no more are in use, and sets the limit then (`mem_cgroup_resize_max`).
    ///
    /// From then on a fault that needs a frame reclaims first when the limit is reached. It fails
    /// as if all frames were in use if nothing can be reclaimed, where Linux would call its OOM
    /// killer. Page tables count, but are not refused.
    ///
    /// # Errors
    ///
    /// [`LimitBusy`] if too many pages cannot be reclaimed: the limit stays what it was.
    ///
    /// # Panics
    ///
    /// If the token is of a thread that entered another machine.
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::{PAGE_SIZE, mm::MmapArgs};
    /// # let memory = emmu::MemConfig { swap: 64, ..Default::default() };
    /// # let config = emmu::MachineConfig { memory, ..Default::default() };
    /// # let machine = emmu::Machine::new(config);
    /// # let mut thread = machine.enter()?;
    /// # let mut cx = thread.cx();
    /// # let mm = emmu::Mm::new(&machine);
    ///
    /// let at = mm.mmap(&mut cx, &MmapArgs::anonymous(40 * PAGE_SIZE))?;
    /// machine.set_memory_limit(&mut cx, Some(32))?;
    /// for page in 0..40 {
    ///     mm.store(&mut cx, at + page * PAGE_SIZE, 1)?; // the last of these pages push others to swap
    /// }
    /// assert!(machine.mem().in_use() < 32 && machine.mem().swap().used() > 8);
    /// assert!(machine.set_memory_limit(&mut cx, Some(1)).is_err()); // the page tables alone are more
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_memory_limit(
        &self,
        cx: &mut CallCx<'_>,
        pages: Option<u64>,
    ) -> Result<(), LimitBusy> {
        self.check_token(cx);
        let most = pages.unwrap_or(u64::MAX);
        while !self.mem().try_set_limit(most) {
            if self.reclaimer().free(cx, 1) == 0 {
                return Err(LimitBusy(most));
            }
        }
        Ok(())
    }
    /// Frees frames for an allocation that failed with `error`, if it met the limit of memory.
    /// Returns true if the operation may try again.
    pub(in crate::mm) fn make_room<R: Below<rank::Mmap>>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        error: &impl HasErrno,
    ) -> bool {
        self.mem().is_at_limit()
            && error.errno() == Errno::ENOMEM
            && self
                .reclaimer()
                .free(&mut cx.descend::<rank::Mmap, Sleepable>(), 1)
                > 0
    }
}
