//! The registered drivers of an address space, as the address space uses them.
//!
//! An address space without drivers pays one null pointer, and one load for each window here (a
//! second one looks for secondary TLBs).

use super::{
    chain::{Chain, Registration},
    driver::{AgeKind, ExternalMmu},
    driver_entry::DriverEntry,
    observer::WindowObserver,
    once_arc::OnceArc,
    outcome::TicketVerdict,
    registration_phase::RegistrationPhase,
    seat::Seat,
    subscription::Subscription,
    translation::RegId,
    unregistrations::Space,
};
use crate::{
    addr::VpnRange,
    ctx::{Atomic, Below, Cx, Epoch, FaultCx, Rank, Sleepable, rank},
    error::RegisterError,
    frame::PhysMem,
    sync::{Addresses, Despite, Ordering},
};
use std::sync::{Arc, Weak};

/// The addresses of the drivers that are registered, in any address space.
static REGISTERED: Addresses = Addresses::new();

/// An address space that ends: no driver is registered, and a driver that registers now gets no
/// permit while this lives.
pub(crate) struct Closing<'c>(Option<&'c Chain>);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        if let Some(chain) = self.0 {
            chain.board.end(VpnRange::ALL);
        }
    }
}

/// The drivers of an address space: one pointer, null until the first registration.
pub(crate) struct Notifiers(OnceArc<Chain>);

impl Notifiers {
    pub(crate) fn new() -> Self {
        Self(OnceArc::new())
    }
    #[inline(always)]
    pub(super) fn chain(&self) -> Option<&Chain> {
        self.0.get()
    }
    /// Returns true if a driver was ever registered: only then a window may have to wait for one.
    #[inline]
    pub(crate) fn is_made(&self) -> bool {
        self.chain().is_some()
    }
    /// Returns true if every open window is on the board.
    pub(crate) fn is_ready(&self) -> bool {
        self.chain()
            .is_some_and(|chain| chain.ready.load(Ordering::Acquire))
    }
    /// Makes the board, on which windows are written from now on.
    ///
    /// `drain` then waits for the windows that began before, except those that the mmap lock, held
    /// exclusively, keeps out.
    pub(crate) fn prepare(&self, cx: &FaultCx<'_>, space: Weak<Space>, drain: impl FnOnce()) {
        if !self.is_ready() {
            let chain = self.0.get_or_make(|| Chain::new(cx.epoch(), space));
            drain();
            chain.ready.store(true, Ordering::Release);
        }
    }
    /// Puts a driver on the chain, for all of the address space or for a range.
    ///
    /// Windows may be open: they are on the board, which refuses permits to a driver that they did
    /// not call.
    ///
    /// # Errors
    ///
    /// [`RegisterError`] for a driver that could answer no window: one without a gate on its seat,
    /// and one that is registered already, and so has the gate of that registration.
    pub(crate) fn register<E: ExternalMmu + 'static, R: Rank>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        mem: &Arc<PhysMem>,
        range: Option<VpnRange>,
        build: impl FnOnce(Seat) -> Arc<E>,
    ) -> Result<(Arc<E>, Registration), RegisterError> {
        let chain = self.0.share().expect("prepared before");
        let reg = RegId::next();
        let phase = Arc::new(RegistrationPhase::new());
        let sub = range.map(|range| Arc::new(Subscription::new(range)));
        let ext = build(Seat {
            reg,
            tag: reg.tag(),
            board: Arc::clone(&chain.board),
            phase: Arc::clone(&phase),
            mem: Arc::clone(mem),
            sub: sub.clone(),
        });
        let taken = REGISTERED.take(Arc::as_ptr(&ext));
        let taken = taken.ok_or_else(|| RegisterError::Twice(ext.name()))?;
        if !phase.has_gate() {
            return Err(RegisterError::NoGate(ext.name()));
        }
        let dynamic = Arc::clone(&ext) as Arc<dyn ExternalMmu>;
        let entry = Arc::new(DriverEntry::new(reg, dynamic, phase, (sub, taken)));
        chain.insert(cx, &entry);
        Ok((ext, Registration { chain, entry }))
    }
    /// Ends the address space: each driver is unregistered and released, by this or by an
    /// unregistration under way. Panics of drivers are kept in `despite`.
    pub(crate) fn release_all(&self, cx: &mut FaultCx<'_>, despite: &mut Despite) -> Closing<'_> {
        let Some(chain) = self.chain() else {
            return Closing(None);
        };
        loop {
            for entry in chain.all(cx) {
                chain.unregister_despite_panics(cx, &entry, despite);
            }
            chain.unregistrations.wait();
            // A driver that registers from here on finds a window open over everything, so it
            // cannot establish a translation meanwhile.
            chain.board.begin(VpnRange::ALL);
            let closing = Closing(Some(chain));
            if chain.all(cx).is_empty() {
                chain.board.observe(|w| w.released());
                return closing;
            }
        }
    }
    /// Returns the registration of a driver.
    pub(crate) fn registration_of(
        &self,
        epoch: &Epoch,
        ext: &Arc<dyn ExternalMmu>,
    ) -> Option<RegId> {
        let chain = self.chain()?;
        let mut all = chain.subscriptions.all();
        let local = epoch.register();
        chain
            .list
            .for_each(&local.pin(), |entry| all.push(Arc::clone(entry)));
        let is = |e: &Arc<DriverEntry>| std::ptr::addr_eq(Arc::as_ptr(&e.ext), Arc::as_ptr(ext));
        all.iter().find(|e| is(e)).map(|e| e.reg)
    }
    /// Returns true if no driver is registered.
    pub(crate) fn is_empty(&self, epoch: &Epoch) -> bool {
        self.chain().is_none_or(|chain| {
            let local = epoch.register();
            let mut empty = chain.subscriptions.len() == 0;
            chain.list.for_each(&local.pin(), |_| empty = false);
            empty
        })
    }
    /// Returns the number of drivers that are registered on ranges.
    pub(crate) fn subscriptions(&self) -> usize {
        self.chain().map_or(0, |chain| chain.subscriptions.len())
    }
    /// Asks every driver if a page of the range was used. All drivers are asked whatever the first
    /// one returns, so that all clear their accessed state.
    pub(crate) fn age<R: Below<rank::Callback>>(
        &self,
        cx: &mut Cx<'_, R, Atomic>,
        range: VpnRange,
        kind: AgeKind,
    ) -> bool {
        let Some(chain) = self.chain() else {
            return false;
        };
        let visits = chain.visit(cx, range);
        visits.iter().fold(false, |young, visit| {
            visit.entry().ext.age(cx.descend(), range, kind) | young
        })
    }
    /// Installs an observer, if a driver was ever registered.
    pub(crate) fn watch(&self, watch: Arc<dyn WindowObserver>) {
        if let Some(chain) = self.chain() {
            chain.board.set_observer(watch);
        }
    }
    /// Runs `f`, and returns its result if no window was open over `range` meanwhile. The range is
    /// a page, or pages of one 2-MiB block.
    pub(crate) fn if_no_window<T>(&self, range: VpnRange, f: impl FnOnce() -> T) -> Option<T> {
        let drawn = self.chain().map(|chain| chain.board.draw(range));
        let out = f();
        let verdict = drawn.map_or(TicketVerdict::Current, |drawn| drawn.verdict(range));
        (verdict == TicketVerdict::Current).then_some(out)
    }
    /// Returns the space of the hooks of its drivers.
    #[cfg(feature = "testkit")]
    pub(crate) fn hooked_space(&self) -> super::test_hook::HookedSpace {
        let board = self.chain().map(|chain| Arc::as_ptr(&chain.board));
        super::test_hook::HookedSpace(board.map_or(0, |board| board.addr()))
    }
    /// Returns the ranges of the windows that are open now.
    pub(crate) fn open_windows(&self) -> Vec<VpnRange> {
        self.chain()
            .map_or(Vec::new(), |chain| chain.board.ranges())
    }
    /// Returns the number of windows that are open now.
    pub(crate) fn windows_open(&self) -> usize {
        self.chain().map_or(0, |chain| chain.board.open())
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_address_space_pays_one_pointer() {
        assert_eq!(size_of::<super::Notifiers>(), size_of::<usize>());
    }
}
