//! Atomic operations: the GPU has the page alone, in its own memory or by exclusive access.

use super::{
    engine::Engine,
    error::GpuError,
    gpu::{Gpu, Guard},
    mistake::GpuMistake,
};
use crate::{
    addr::{PAGE_SIZE, Vpn},
    ctx::{CallCx, FolioCx},
    mm::ExclusivePage,
    notifier::{Access, ShadowEntry},
};

impl Engine {
    /// Replaces the word at `addr` by `f` of it, as one operation, and returns the old word.
    ///
    /// The GPU reads and then writes; the bus has no atomic operations. So no processor may reach
    /// the page between: the page lies in the GPU's own memory, or the GPU has it alone
    /// ([`Mm::make_device_exclusive`](crate::Mm::make_device_exclusive)), and the window that takes
    /// it back waits for the gate, which is held. `f` must not use the address space or the GPU.
    ///
    /// # Errors
    ///
    /// [`GpuError::Misaligned`], [`GpuError::Exclusive`], [`GpuError::Fault`], [`GpuError::Gone`];
    /// nothing was written.
    pub fn update(
        &self,
        cx: &mut CallCx<'_>,
        addr: u64,
        mut f: impl FnMut(u64) -> u64,
    ) -> Result<u64, GpuError> {
        if !addr.is_multiple_of(8) {
            return Err(GpuError::Misaligned(addr));
        }
        let at = Vpn::containing(addr);
        let offset = usize::try_from(addr % PAGE_SIZE).expect("below a page");
        loop {
            let mut gate = self.gpu.gate.lock(cx);
            if self.gpu.has_alone(&mut gate, at) {
                let _copy = gate.cached_if(&at, |entry| {
                    entry.set_dirty();
                    true
                });
                let mut view = gate.lookup_mut(&at).expect("the entry allows writing");
                let old = view.as_view().read_u64(offset);
                view.write_deferring_dirty(offset, &f(old).to_le_bytes());
                return Ok(old);
            }
            drop(gate);
            self.gpu.take_alone(cx, at)?;
        }
    }
}

impl Gpu {
    /// Returns true if the page has an entry of its own for writing, and no processor reaches the
    /// frame.
    fn has_alone(&self, gate: &mut Guard<'_>, at: Vpn) -> bool {
        let can_write = |entry: &ShadowEntry| entry.is_writable() && entry.range().pages() == 1;
        let Some(cached) = gate.cached_if(&at, can_write) else {
            return false;
        };
        let own = |pfn| {
            self.board
                .as_ref()
                .is_some_and(|board| board.has_alone(pfn))
        };
        own(cached.translation().pfn())
            || gate.state().alone.contains(&at)
            || self.made(GpuMistake::SharedAtomics)
    }
    /// Gets a page alone: as it is, if it lies in the GPU's own memory.
    fn take_alone(&self, cx: &mut CallCx<'_>, at: Vpn) -> Result<(), GpuError> {
        let mm = self.mm.upgrade().ok_or(GpuError::Gone)?;
        let memory = self.board.as_ref().map(|board| &board.memory);
        if memory.is_some() || self.made(GpuMistake::SharedAtomics) {
            self.fault(cx, (at, Access::Write), 0)?;
            if self.has_alone(&mut self.gate.lock(cx), at) {
                return Ok(());
            }
        }
        mm.make_device_exclusive(cx, at.addr(), memory, |page, cx| {
            self.map_alone(page, cx);
        })?;
        Ok(())
    }
    /// Maps a page that the GPU has alone. If a fork has taken it back already, the caller tries
    /// again.
    fn map_alone(&self, page: &ExclusivePage<'_>, mut cx: FolioCx<'_>) {
        let at = page.page();
        let ticket = self.gate.ticket(at, Access::Write);
        let pending = page.resolve(&mut cx, ticket).ok().flatten();
        let Some(mut permit) = pending.and_then(|pending| pending.admit(&mut cx).ok()) else {
            return;
        };
        permit
            .guard()
            .forget_range(at.into(), |engines| engines.flush(at.into()));
        self.meter.faulted(at.into());
        let mut gate = permit.establish(at);
        gate.state().alone.insert(at);
    }
}
