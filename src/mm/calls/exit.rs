//! The end of an address space: calls each driver's `release` once, then frees all memory.

use crate::mm::{
    entry::flags::VmFlags, page_table::Pin, space::Mm, vma::layout::Layout, window::restore_reserve,
};
use crate::{
    addr::{TASK_SIZE, VpnRange},
    ctx::CallCx,
    sync::Despite,
    trace,
};
use std::convert::Infallible;

impl Mm {
    /// Ends the address space (`exit_mmap`): calls `release` of each external MMU, then frees all
    /// pages, tables and VMAs. No window opens for that, since no driver is left. An empty address
    /// space remains; a second call does nothing.
    ///
    /// # Panics
    ///
    /// If a driver does in `release`, or a device as it leaves. The address space has ended all the
    /// same, for all of them.
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::{PAGE_SIZE, extmmu::Recorder, mm::MmapArgs};
    /// # let machine = emmu::Machine::new(Default::default());
    /// # let mut thread = machine.enter()?;
    /// # let mut cx = thread.cx();
    /// # let mm = emmu::Mm::new(&machine);
    ///
    /// let (_recorder, _registration) = mm.register(&mut cx, Recorder::new);
    /// let at = mm.mmap(&mut cx, &MmapArgs::anonymous(PAGE_SIZE))?;
    /// mm.store(&mut cx, at, 7)?;
    /// mm.exit(&mut cx); // the external MMU is released, then all pages are freed
    /// assert_eq!(machine.mem().in_use(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn exit(&self, cx: &mut CallCx<'_>) {
        let _call = trace::call("exit", 0, TASK_SIZE);
        let mut g = self.lock_exclusive(cx);
        let mut despite = Despite::default();
        let closing = self.notifiers.release_all(&mut g.cx, &mut despite);
        self.tlbs.release_all(&mut g.cx, &mut despite);
        let empty = Layout::new(self.machine(), g.layout.space.clone());
        let layout = std::mem::replace(&mut *g.layout, empty);
        for context in layout.vmas.iter().filter_map(|vma| vma.userfault()) {
            context.wake(VpnRange::ALL);
        }
        self.wake_all_faults();
        let view = self.table.view(&mut g.cx);
        self.tear_down(layout, view.pin());
        drop(view);
        drop(closing);
        let host = self.machine().host();
        despite.call(|| host.settle_exports(&mut g.cx));
        drop(g);
        despite.resume();
    }

    /// Gives the reservations of private huge pages back to the VMA that is about to end.
    fn restore_reserves(&self, pin: Pin<'_>, range: VpnRange) {
        let mem = self.machine().mem();
        self.table.for_each_locked_leaf(range, pin, |part, leaf| {
            restore_reserve(mem, &leaf, part);
        });
    }

    fn tear_down(&self, layout: Layout, pin: Pin<'_>) {
        let mem = self.machine().mem();
        let tables = &self.machine().shared_tables;
        tables.forget(self.number(), VpnRange::ALL);
        let flushed = self.tlbs.after_release();
        for vma in layout.vmas.iter() {
            if vma.flags.contains(VmFlags::LOCKED) {
                super::mlock::mark_unevictable(self, pin, vma.range(), false);
            }
            if vma.is_owner() {
                self.restore_reserves(pin, vma.range());
            }
        }
        self.table
            .leaves(VpnRange::TASK, pin, |part, leaf| {
                // No window: the drivers were released, or there never was one.
                if self.table.give_up_shared(part, leaf, || flushed) {
                    return Ok(());
                }
                let Some(leaf) = leaf.lock() else {
                    return Ok(());
                };
                let mut retired = mem.retired();
                leaf.take_if(
                    part,
                    |_| true,
                    |pte| crate::mm::entry::release::drop_entry_to(&mut retired, pte, flushed),
                );
                Ok::<(), Infallible>(())
            })
            .unwrap_or_else(|e| match e {});
        self.table.free_all(pin);
        for vma in layout.vmas.iter() {
            if vma.flags.contains(VmFlags::ACCOUNT) {
                layout.uncharge(vma.pages());
            }
        }
    }
}

impl Drop for Mm {
    /// Frees the memory of an address space that was not ended by [`exit`](Self::exit). If an
    /// external MMU is registered, this is `exit`, and needs no token.
    ///
    /// So it must not happen under a lock that a driver's `release` takes, under the gate of a
    /// driver of this address space, or under an epoch pin: the thread would wait for itself.
    ///
    /// # Panics
    ///
    /// If a driver does in `release`, unless the thread unwinds.
    fn drop(&mut self) {
        let epoch = self.machine.epoch();
        if !self.notifiers.is_empty(epoch) || !self.tlbs.is_empty() {
            let mut despite = Despite::default();
            let _ended = despite.call(|| epoch.with_token_of_a_drop(|cx| self.exit(cx)));
            despite.resume();
        }
        let nobody: std::sync::Weak<Self> = std::sync::Weak::new();
        let empty = Layout::new(&self.machine, nobody);
        let layout = std::mem::replace(self.layout.get_mut(), empty);
        let local = self.machine.epoch().register();
        let guard = local.pin();
        self.tear_down(layout, self.table.pin(&guard));
    }
}
