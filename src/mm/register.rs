//! How external MMUs come to an address space and leave it.

use super::{Mm, MmapReadGuard, MmapWriteGuard};
use crate::{
    addr::VpnRange,
    ctx::{Cx, Outside, Sleepable, rank},
    error::RegisterError,
    notifier::{ExternalMmu, Registration, Seat},
};
use std::sync::Arc;

impl Mm {
    /// Puts an external MMU on the chain, for the whole address space; `build` turns the seat into the driver
    /// (`mmu_notifier_register`).
    ///
    /// The first registration takes the mmap lock. Every later one takes no lock and waits for nobody: windows that are open
    /// do not call the driver, and hold off its faults until they end.
    ///
    /// # Panics
    ///
    /// Where [`try_register`](Self::try_register) fails.
    pub fn register<E: ExternalMmu + 'static>(
        &self,
        cx: &mut Cx<'_, rank::Idle, Sleepable>,
        build: impl FnOnce(Seat) -> Arc<E>,
    ) -> (Arc<E>, Registration) {
        self.put_on(cx, None, build).unwrap_or_else(refused)
    }
    /// [`register`](Self::register) for drivers of which nobody knows how they are built.
    ///
    /// # Errors
    ///
    /// [`RegisterError`]: `build` made no gate of the seat, or returned a driver that is registered; nothing changed.
    pub fn try_register<E: ExternalMmu + 'static>(
        &self,
        cx: &mut Cx<'_, rank::Idle, Sleepable>,
        build: impl FnOnce(Seat) -> Arc<E>,
    ) -> Result<(Arc<E>, Registration), RegisterError> {
        self.put_on(cx, None, build)
    }
    /// Puts an external MMU on the chain for the pages of `range` alone: windows that do not overlap it neither call it nor
    /// make its tickets stale (`mmu_interval_notifier_insert`). Ranges may overlap and repeat, and need not be mapped.
    ///
    /// Costs O(log n) in the number of subscriptions, and waits for nobody, as [`register`](Self::register).
    ///
    /// # Panics
    ///
    /// Where [`try_subscribe`](Self::try_subscribe) fails.
    pub fn subscribe<E: ExternalMmu + 'static>(
        &self,
        cx: &mut Cx<'_, rank::Idle, Sleepable>,
        range: VpnRange,
        build: impl FnOnce(Seat) -> Arc<E>,
    ) -> (Arc<E>, Registration) {
        self.put_on(cx, Some(range), build).unwrap_or_else(refused)
    }
    /// [`subscribe`](Self::subscribe) for drivers of which nobody knows how they are built.
    ///
    /// # Errors
    ///
    /// As [`try_register`](Self::try_register).
    pub fn try_subscribe<E: ExternalMmu + 'static>(
        &self,
        cx: &mut Cx<'_, rank::Idle, Sleepable>,
        range: VpnRange,
        build: impl FnOnce(Seat) -> Arc<E>,
    ) -> Result<(Arc<E>, Registration), RegisterError> {
        self.put_on(cx, Some(range), build)
    }
    fn put_on<E: ExternalMmu + 'static>(
        &self,
        cx: &mut Cx<'_, rank::Idle, Sleepable>,
        range: Option<VpnRange>,
        build: impl FnOnce(Seat) -> Arc<E>,
    ) -> Result<(Arc<E>, Registration), RegisterError> {
        self.prepare(cx);
        self.notifiers
            .register(cx, self.machine().mem(), range, build)
    }
    /// Takes an external MMU off; short for [`Registration::unregister`].
    pub fn unregister<R: Outside>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        registration: Registration,
    ) {
        registration.unregister(cx);
    }
    /// External MMUs that subscribed to ranges.
    pub fn subscriptions(&self) -> usize {
        self.notifiers.subscriptions()
    }
    fn prepare(&self, cx: &mut Cx<'_, rank::Idle, Sleepable>) {
        self.check_token(cx);
        if !self.notifiers.is_ready() {
            self.write(cx).prepare();
        }
    }
}

/// A driver that can never answer is a mistake of whoever wrote it.
fn refused<T>(why: RegisterError) -> T {
    panic!("not registered: {why}")
}

impl MmapWriteGuard<'_> {
    /// [`Mm::register`] under this lock.
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
    /// [`Mm::subscribe`] under this lock.
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
    /// Makes the board. The lock held exclusively keeps out every window that would be opened under it.
    fn prepare(&mut self) {
        // A walk of a reverse map opens windows without the mmap lock. Those that began when there was no board must be
        // over before the first driver looks at one (`mm_take_all_locks`).
        let layout = &self.layout;
        self.mm.notifiers.prepare(&self.cx, || layout.drain_walks());
    }
    /// [`Registration::unregister`] under this lock.
    pub fn unregister(&mut self, registration: Registration) {
        registration.unregister(&mut self.cx);
    }
}

impl MmapReadGuard<'_> {
    /// [`Registration::unregister`] under this lock.
    pub fn unregister(&mut self, registration: Registration) {
        registration.unregister(&mut self.cx);
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        Machine, MachineConfig, MemConfig, Mm,
        addr::{Vpn, VpnRange},
        ctx::{Atomic, Cx, Sleepable, rank},
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
        fn invalidate_start<'i>(
            &self,
            cx: Cx<'_, rank::Callback, Sleepable>,
            inv: Invalidation<'i>,
        ) -> Ack<'i> {
            self.0.exclude(cx, inv, |(), _, _| ())
        }
    }

    /// For Miri: drivers come, are called, leave and are freed while another thread walks over them.
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
        let rounds = if cfg!(miri) { 20 } else { 2000 };
        let range = VpnRange::new(Vpn(16), Vpn(24)).unwrap();
        std::thread::scope(|s| {
            s.spawn(|| {
                let mut thread = machine.enter().unwrap();
                let mut cx = thread.cx();
                for _ in 0..rounds {
                    let mut g = mm.read(&mut cx);
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
                // A visitor that has left may be about to let go of what it held.
                let until = Instant::now() + Duration::from_secs(600);
                while weak.upgrade().is_some() {
                    assert!(Instant::now() < until, "it is never freed");
                    std::thread::yield_now();
                }
            }
        });
    }
}
