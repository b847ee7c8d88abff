//! Registration of external MMUs with an address space, and its end.
//!
//! A driver is called for the whole address space ([`Mm::register`]) or for a range
//! ([`Mm::subscribe`]). Only the first registration of an address space takes the mmap lock: it
//! makes the board on which windows are announced from then on.

use crate::mm::{
    guard::{MmapReadGuard, MmapWriteGuard},
    space::Mm,
};
use crate::{
    addr::VpnRange,
    ctx::{CallCx, Cx, Outside, Sleepable},
    error::RegisterError,
    notifier::{ExternalMmu, Registration, Seat},
};
use std::sync::Arc;

impl Mm {
    /// Registers an external MMU for the whole address space; `build` turns the seat into the
    /// driver (`mmu_notifier_register`).
    ///
    /// The first registration takes the mmap lock. Each later one takes no lock and does not wait:
    /// windows that are open now do not call the driver, and hold off its faults until they end.
    ///
    /// # Panics
    ///
    /// Where [`try_register`](Self::try_register) fails.
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::{PAGE_SIZE, addr::{Vpn, VpnRange}, extmmu::{Recorded, Recorder}, mm::MmapArgs};
    /// # let machine = emmu::Machine::new(Default::default());
    /// # let mut thread = machine.enter()?;
    /// # let mut cx = thread.cx();
    /// # let mm = emmu::Mm::new(&machine);
    ///
    /// let (recorder, registration) = mm.register(&mut cx, Recorder::new);
    /// let at = mm.mmap(&mut cx, &MmapArgs::anonymous(PAGE_SIZE))?;
    /// mm.store(&mut cx, at, 7)?;
    /// mm.munmap(&mut cx, at, PAGE_SIZE)?;
    /// let page = VpnRange::single(Vpn::containing(at));
    /// assert_eq!(recorder.take(), [Recorded::Window(page)]);
    /// mm.unregister(&mut cx, registration);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn register<E: ExternalMmu + 'static>(
        &self,
        cx: &mut CallCx<'_>,
        build: impl FnOnce(Seat) -> Arc<E>,
    ) -> (Arc<E>, Registration) {
        self.put_on(cx, None, build).unwrap_or_else(refused)
    }
    /// Registers as [`register`](Self::register) does, and returns an error where that panics.
    ///
    /// # Errors
    ///
    /// [`RegisterError`]: `build` made no gate of the seat, or returned a driver that is
    /// registered. Nothing changed.
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::extmmu::Recorder;
    /// use std::sync::Arc;
    /// # let machine = emmu::Machine::new(Default::default());
    /// # let mut thread = machine.enter()?;
    /// # let mut cx = thread.cx();
    /// # let mm = emmu::Mm::new(&machine);
    ///
    /// let (recorder, registration) = mm.register(&mut cx, Recorder::new);
    /// // This closure makes no gate of the seat, so windows would not reach the driver.
    /// let refused = mm.try_register(&mut cx, |_seat| Arc::clone(&recorder));
    /// assert!(refused.is_err());
    /// mm.unregister(&mut cx, registration);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn try_register<E: ExternalMmu + 'static>(
        &self,
        cx: &mut CallCx<'_>,
        build: impl FnOnce(Seat) -> Arc<E>,
    ) -> Result<(Arc<E>, Registration), RegisterError> {
        self.put_on(cx, None, build)
    }
    /// Registers an external MMU for the pages of `range` alone: windows that do not overlap the
    /// range neither call the driver nor make its tickets stale (`mmu_interval_notifier_insert`).
    /// Ranges may overlap and repeat, and need not be mapped.
    ///
    /// Takes O(log n) in the number of subscriptions, and waits no more than
    /// [`register`](Self::register) does.
    ///
    /// # Panics
    ///
    /// Where [`try_subscribe`](Self::try_subscribe) fails.
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::{PAGE_SIZE, addr::{Vpn, VpnRange}, extmmu::Recorder, mm::{Advice, MmapArgs}};
    /// # let machine = emmu::Machine::new(Default::default());
    /// # let mut thread = machine.enter()?;
    /// # let mut cx = thread.cx();
    /// # let mm = emmu::Mm::new(&machine);
    ///
    /// let at = mm.mmap(&mut cx, &MmapArgs::anonymous(2 * PAGE_SIZE))?;
    /// let first = VpnRange::single(Vpn::containing(at));
    /// let (recorder, registration) = mm.subscribe(&mut cx, first, Recorder::new);
    /// mm.write_bytes(&mut cx, at, &[7; 2 * PAGE_SIZE as usize])?;
    ///
    /// mm.madvise(&mut cx, at + PAGE_SIZE, PAGE_SIZE, Advice::DontNeed)?;
    /// assert!(recorder.take().is_empty(), "the second page is not its own");
    /// mm.madvise(&mut cx, at, PAGE_SIZE, Advice::DontNeed)?;
    /// assert_eq!(recorder.take().len(), 1);
    /// mm.unregister(&mut cx, registration);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn subscribe<E: ExternalMmu + 'static>(
        &self,
        cx: &mut CallCx<'_>,
        range: VpnRange,
        build: impl FnOnce(Seat) -> Arc<E>,
    ) -> (Arc<E>, Registration) {
        self.put_on(cx, Some(range), build).unwrap_or_else(refused)
    }
    /// Subscribes as [`subscribe`](Self::subscribe) does, and returns an error where that panics.
    ///
    /// # Errors
    ///
    /// Like [`try_register`](Self::try_register).
    pub fn try_subscribe<E: ExternalMmu + 'static>(
        &self,
        cx: &mut CallCx<'_>,
        range: VpnRange,
        build: impl FnOnce(Seat) -> Arc<E>,
    ) -> Result<(Arc<E>, Registration), RegisterError> {
        self.put_on(cx, Some(range), build)
    }
    fn put_on<E: ExternalMmu + 'static>(
        &self,
        cx: &mut CallCx<'_>,
        range: Option<VpnRange>,
        build: impl FnOnce(Seat) -> Arc<E>,
    ) -> Result<(Arc<E>, Registration), RegisterError> {
        self.prepare(cx);
        self.notifiers
            .register(cx, self.machine().mem(), range, build)
    }
    /// Unregisters an external MMU; short for [`Registration::unregister`].
    pub fn unregister<R: Outside>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        registration: Registration,
    ) {
        registration.unregister(cx);
    }
    /// Returns the number of external MMUs that subscribed to ranges.
    pub fn subscriptions(&self) -> usize {
        self.notifiers.subscriptions()
    }
    fn prepare(&self, cx: &mut CallCx<'_>) {
        self.check_token(cx);
        if !self.notifiers.is_ready() {
            self.lock_exclusive(cx).prepare();
        }
    }
}

/// Panics: a driver that can never answer is a mistake in the program.
fn refused<T>(why: RegisterError) -> T {
    panic!("not registered: {why}")
}

impl MmapWriteGuard<'_> {
    /// Registers an external MMU under this lock; see [`Mm::register`].
    ///
    /// # Panics
    ///
    /// Where [`Mm::try_register`] fails.
    pub fn register<E: ExternalMmu + 'static>(
        &mut self,
        build: impl FnOnce(Seat) -> Arc<E>,
    ) -> (Arc<E>, Registration) {
        self.put_on(None, build)
    }
    /// Subscribes an external MMU under this lock; see [`Mm::subscribe`].
    ///
    /// # Panics
    ///
    /// Where [`Mm::try_subscribe`] fails.
    pub fn subscribe<E: ExternalMmu + 'static>(
        &mut self,
        range: VpnRange,
        build: impl FnOnce(Seat) -> Arc<E>,
    ) -> (Arc<E>, Registration) {
        self.put_on(Some(range), build)
    }
    fn put_on<E: ExternalMmu + 'static>(
        &mut self,
        range: Option<VpnRange>,
        build: impl FnOnce(Seat) -> Arc<E>,
    ) -> (Arc<E>, Registration) {
        self.prepare();
        let mm = self.mm;
        mm.notifiers
            .register(&mut self.cx, mm.machine().mem(), range, build)
            .unwrap_or_else(refused)
    }
    /// Makes the board on which windows are announced. No window can be opened under this lock,
    /// which is held exclusively.
    fn prepare(&mut self) {
        // A walk of a reverse map opens windows without the mmap lock. The walks that began before
        // there was a board must end before the first driver reads it (`mm_take_all_locks`).
        let layout = &self.layout;
        let space = layout.space.clone();
        self.mm
            .notifiers
            .prepare(&self.cx, space, || layout.drain_walks());
    }
    /// Unregisters an external MMU under this lock; see [`Registration::unregister`].
    pub fn unregister(&mut self, registration: Registration) {
        registration.unregister(&mut self.cx);
    }
}

impl MmapReadGuard<'_> {
    /// Unregisters an external MMU under this lock; see [`Registration::unregister`].
    pub fn unregister(&mut self, registration: Registration) {
        registration.unregister(&mut self.cx);
    }
}

#[cfg(test)]
mod tests {
    use crate::ctx::CallbackCx;
    use crate::{
        Machine, MachineConfig, MemConfig, Mm,
        addr::{Vpn, VpnRange},
        ctx::Atomic,
        notifier::{Ack, Event, ExternalMmu, Gate, Invalidation, OrderedStore, Seat},
    };
    use std::{
        sync::Arc,
        time::{Duration, Instant},
    };

    struct Driver(Gate<OrderedStore<u64>, (), Atomic>);

    impl Driver {
        fn new(seat: Seat) -> Arc<Self> {
            Arc::new(Self(Gate::new(seat, OrderedStore::default(), ())))
        }
    }

    impl ExternalMmu for Driver {
        fn invalidate_start<'i>(&self, cx: CallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
            self.0.exclude(cx, inv, |(), _, _| ())
        }
    }

    /// For Miri: drivers are registered, called, unregistered and freed while another thread walks
    /// the chain.
    #[test]
    fn drivers_are_freed_after_the_last_walker_left() {
        let machine = Machine::new(MachineConfig {
            memory: MemConfig {
                frames: 16,
                ..MemConfig::default()
            },
            ..MachineConfig::default()
        });
        let mm = Mm::new(&machine);
        let rounds = if cfg!(miri) { 6 } else { 2000 };
        let range = VpnRange::new(Vpn(16), Vpn(24)).unwrap();
        std::thread::scope(|s| {
            s.spawn(|| {
                let mut thread = machine.enter().unwrap();
                let mut cx = thread.cx();
                for _ in 0..rounds {
                    let mut g = mm.lock_shared(&mut cx);
                    let mut lease = g.lease();
                    lease.with_window(range, Event::Clear, |_| ());
                }
            });
            let mut thread = machine.enter().unwrap();
            let mut cx = thread.cx();
            for _ in 0..rounds {
                let (a, whole) = mm.register(&mut cx, Driver::new);
                let (b, part) = mm.subscribe(&mut cx, range, Driver::new);
                let weak = Arc::downgrade(&b);
                drop((a, b));
                part.unregister(&mut cx);
                whole.unregister(&mut cx);
                // A walker that has left may still be about to drop its reference.
                let until = Instant::now() + Duration::from_secs(600);
                while weak.upgrade().is_some() {
                    assert!(Instant::now() < until, "it is never freed");
                    std::thread::yield_now();
                }
            }
        });
    }
}
