//! `swapoff` and `swapon`: taking the swap device out of use, and back.

use crate::mm::{
    machine::{Machine, Space},
    space::Mm,
};
use crate::{
    addr::VpnRange,
    ctx::CallCx,
    error::{NoMemory, SwapError},
};

/// The most rounds without a page that came back, while other threads work on the last pages.
const PATIENCE: u32 = 4096;

impl Machine {
    /// Takes the swap device out of use: every page in swap is in memory again, private pages
    /// mapped where they were and pages of objects in their caches. No window opens, since entries
    /// of pages in swap give no right.
    ///
    /// # Errors
    ///
    /// [`SwapError`]. The device is in use then as before, though pages may have come back.
    ///
    /// # Panics
    ///
    /// If the token is of a thread that entered another machine.
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::{PAGE_SIZE, mm::{Advice, MmapArgs}};
    /// # let memory = emmu::MemConfig { swap: 64, ..Default::default() };
    /// # let config = emmu::MachineConfig { memory, ..Default::default() };
    /// # let machine = emmu::Machine::new(config);
    /// # let mut thread = machine.enter()?;
    /// # let mut cx = thread.cx();
    /// # let mm = emmu::Mm::new(&machine);
    ///
    /// let at = mm.mmap(&mut cx, &MmapArgs::anonymous(PAGE_SIZE))?;
    /// mm.store(&mut cx, at, 7)?;
    /// mm.madvise(&mut cx, at, PAGE_SIZE, Advice::PageOut)?;
    /// assert_eq!(machine.mem().swap().used(), 1);
    /// machine.swapoff(&mut cx)?;
    /// assert_eq!(machine.mem().swap().used(), 0);
    /// assert_eq!(mm.load(&mut cx, at)?, 7);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn swapoff(&self, cx: &mut CallCx<'_>) -> Result<(), SwapError> {
        self.check_token(cx);
        let leaving = self.mem().swap().leave().ok_or(SwapError::NotInUse)?;
        self.try_to_unuse(cx)?;
        leaving.finish();
        Ok(())
    }
    /// Puts the swap device in use again.
    ///
    /// # Errors
    ///
    /// [`SwapError::InUse`], also while another thread takes the device out of use;
    /// [`SwapError::NotInUse`] if the machine has none.
    pub fn swapon(&self) -> Result<(), SwapError> {
        match self.mem().swap() {
            swap if swap.enter() => Ok(()),
            swap if swap.capacity() > 0 => Err(SwapError::InUse),
            _ => Err(SwapError::NotInUse),
        }
    }
    /// Brings pages back until no slot is in use: those of objects, those of address spaces, and
    /// the frames that were cached for no entry.
    fn try_to_unuse(&self, cx: &mut CallCx<'_>) -> Result<(), SwapError> {
        let mem = self.mem();
        let mut idle = 0;
        loop {
            let before = mem.swap().used();
            for owner in self.registry().all() {
                owner.bring_back(cx)?;
            }
            for space in self.spaces.all() {
                space.bring_back(cx)?;
            }
            mem.swap_cache_drop_unused(cx);
            match mem.swap().used() {
                0 => return Ok(()),
                now if now == before => idle += 1,
                _ => idle = 0,
            }
            if idle > PATIENCE {
                return Err(SwapError::Busy);
            }
            std::thread::yield_now();
        }
    }
}

impl Space for Mm {
    fn bring_back(&self, cx: &mut CallCx<'_>) -> Result<(), NoMemory> {
        let mut swapped = Vec::new();
        self.for_each_entry(cx, VpnRange::TASK, |at, pte| {
            swapped.extend(pte.swap_slot().map(|_| at));
        });
        for at in swapped {
            let range = VpnRange::single(at);
            let (back, _) = self.with_fault_scope(cx, range, |scope| scope.bring_back(at));
            back?;
        }
        Ok(())
    }
    fn collapse_all(&self, cx: &mut CallCx<'_>) -> usize {
        self.khugepaged_scan(cx)
    }
}
