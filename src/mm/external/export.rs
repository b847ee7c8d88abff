//! Exports of frames: for a driver with a reverse map of its own, which refers to frames by number.
//!
//! Guarantee: such a driver is called before an exported frame is given up, whatever takes its last
//! mapping (ADR 0025). So it gets a frame locked, while the frame is known to be mapped.

use crate::mm::{
    entry::{flags::VmFlags, pte::RawPte},
    fault::Patience,
    space::Mm,
};
use crate::{
    addr::{Vpn, VpnRange},
    ctx::{CallCx, FolioCx},
    error::FaultError,
    frame::{Frame, FrameFlags, FrameLock},
    notifier::Access,
    sync::Despite,
};

/// The state of an entry whose frame is to be exported.
enum Exportable<'m> {
    /// The frame that the page keeps.
    Frame(Frame<'m>),
    /// No frame for the access: fault first.
    NeedsFault,
    /// A frame that the page may lose: the zero page, or one that a write would copy. Copy first.
    NeedsCopy,
}

impl Mm {
    /// Makes the page at byte `addr` present for the access, locks its frame, and runs `f` on it
    /// while it is certain that the frame is mapped there.
    ///
    /// In `f` the driver flags the frame ([`FrameLock::export`]), then enters it in its own reverse
    /// map: from then on it is called before the frame can be given up, whatever takes the last
    /// mapping.
    ///
    /// The frame is the page's own: private memory that shows the zero page, a file's page, or a
    /// page that other processes have as well, is copied first, with the rights of its mapping, as
    /// for a long-term pin (`FAULT_FLAG_UNSHARE`). So a later write to the page goes to this frame,
    /// or the driver is called.
    ///
    /// For [`Access::Write`] the frame counts as written; for [`Access::Read`] it cannot be
    /// ([`FrameLock::write`]).
    ///
    /// # Errors
    ///
    /// [`FaultError`], as for the access itself.
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::{PAGE_SIZE, addr::Pfn, ctx::FolioCx, mm::MmapArgs};
    /// use emmu::{notifier::Access, rmap::RmapNotifier};
    /// use std::sync::{Arc, Mutex};
    /// # let machine = emmu::Machine::new(Default::default());
    /// # let mut thread = machine.enter()?;
    /// # let mut cx = thread.cx();
    /// # let mm = emmu::Mm::new(&machine);
    ///
    /// /// A driver that knows its frames by number.
    /// struct Exporter(Mutex<Vec<Pfn>>);
    /// impl RmapNotifier for Exporter {
    ///     fn invalidate_frame(&self, _: FolioCx<'_>, pfn: Pfn) {
    ///         self.0.lock().unwrap().retain(|kept| *kept != pfn);
    ///     }
    /// }
    ///
    /// let exporter = Arc::new(Exporter(Mutex::default()));
    /// let registration = machine.register_exports(exporter.clone());
    /// let at = mm.mmap(&mut cx, &MmapArgs::anonymous(PAGE_SIZE))?;
    /// mm.with_locked_frame(&mut cx, at, Access::Write, |_, frame| {
    ///     frame.export();
    ///     exporter.0.lock().unwrap().push(frame.pfn());
    /// })?;
    /// mm.munmap(&mut cx, at, PAGE_SIZE)?; // the last mapping goes: the driver is called
    /// assert!(exporter.0.lock().unwrap().is_empty());
    /// machine.unregister_exports(&mut cx, registration);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn with_locked_frame<T>(
        &self,
        cx: &mut CallCx<'_>,
        addr: u64,
        access: Access,
        f: impl FnOnce(FolioCx<'_>, &FrameLock<'_>) -> T,
    ) -> Result<T, FaultError> {
        let at = Vpn::containing(addr);
        let mem = self.machine().mem();
        let mut patience = Patience::default();
        loop {
            match self.exportable_at(cx, at, access) {
                Exportable::Frame(frame) => {
                    let mut locked = mem.lock(cx, frame);
                    // The page was reclaimed, copied or unmapped during the wait for the lock: look
                    // again.
                    if self.is_exportable(cx, at, access, &locked) {
                        match access {
                            Access::Read => locked.forbid_writing(),
                            // Neither the entry nor the frame notices what `f` writes
                            // (`follow_page_pte`).
                            Access::Write => mem.set_flags(locked.pfn(), FrameFlags::DIRTY),
                        }
                        let mut despite = Despite::default();
                        let out = despite.call(|| f(cx.descend(), &locked));
                        // Also if `f` panicked: it may have entered the frame by then.
                        despite.call(|| self.notify_if_lost(cx, at, access, &locked));
                        despite.resume();
                        return Ok(out.expect("it did not panic"));
                    }
                }
                Exportable::NeedsFault => {
                    patience.allow_retry(self.fault_in_for_driver(cx, at, addr, access))?
                }
                Exportable::NeedsCopy => patience.allow_retry(self.fault_for_pin(cx, at, addr))?,
            }
        }
    }
    fn is_exportable(
        &self,
        cx: &mut CallCx<'_>,
        at: Vpn,
        access: Access,
        locked: &FrameLock<'_>,
    ) -> bool {
        matches!(self.exportable_at(cx, at, access), Exportable::Frame(frame) if frame.pfn() == locked.pfn())
    }
    /// Calls the drivers if the frame lost its mapping, or a right, before it was flagged: the
    /// operation that took it could not see that the frame is exported.
    fn notify_if_lost(&self, cx: &mut CallCx<'_>, at: Vpn, access: Access, locked: &FrameLock<'_>) {
        let mem = self.machine().mem();
        let exported = mem.flags(locked.pfn()).contains(FrameFlags::EXPORTED);
        if exported && !self.is_exportable(cx, at, access, locked) {
            let exports = &self.machine().registry().exports;
            exports.notify(mem, &mut cx.descend(), locked.pfn());
        }
    }
    fn exportable_at(&self, cx: &mut CallCx<'_>, at: Vpn, access: Access) -> Exportable<'_> {
        let Some(frame) = self.frame_at(cx, at, access) else {
            let zero = access == Access::Read
                && self.entry_at(cx, at).is_some_and(|pte| pte.is_zero_page());
            return if zero {
                Exportable::NeedsCopy
            } else {
                Exportable::NeedsFault
            };
        };
        let flags = self.machine().mem().flags(frame.pfn());
        if flags.is_secret() {
            // The fault refuses it.
            return Exportable::NeedsFault;
        }
        let passing = match (access, flags.contains(FrameFlags::ANON)) {
            (Access::Write, _) => false,
            (Access::Read, true) => !flags.contains(FrameFlags::ANON_EXCLUSIVE),
            (Access::Read, false) => self.is_private(cx, at),
        };
        if passing {
            Exportable::NeedsCopy
        } else {
            Exportable::Frame(frame)
        }
    }
    /// Returns true if a write to the page would copy a page of an object.
    fn is_private(&self, cx: &mut CallCx<'_>, at: Vpn) -> bool {
        let g = self.lock_shared_over(cx, Some(VpnRange::single(at)));
        let flags = g.vma_at(at).map(|vma| vma.flags);
        flags.is_some_and(|flags| !flags.contains(VmFlags::SHARED))
    }
    fn entry_at(&self, cx: &mut CallCx<'_>, at: Vpn) -> Option<RawPte> {
        let view = self.table.view(cx);
        Some(view.leaf(at)?.peek(at))
    }
    /// Returns a reference on the frame that the entry of `at` maps, if the entry allows the
    /// access.
    pub(in crate::mm) fn frame_at(
        &self,
        cx: &mut CallCx<'_>,
        at: Vpn,
        access: Access,
    ) -> Option<Frame<'_>> {
        let mem = self.machine().mem();
        let found = self.with_leaf_of(cx, at, |leaf| {
            let pte = leaf.get(at);
            let mapped = pte.counted().filter(|_| pte.allows(access));
            mapped.map(|pfn| mem.get(pfn))
        });
        found?
    }
}
