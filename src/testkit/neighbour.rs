//! [`Neighbour`]: an external MMU next to the one on trial, which has no translations and acts at
//! chosen moments of the chain.
//!
//! The chain calls the driver that registered last first. A neighbour that registered before the
//! device is therefore called after it: by then the device has acknowledged, and no entry has
//! changed yet. A neighbour that registered after the device is called before it.

use crate::{
    addr::VpnRange,
    ctx::{AtomicCallbackCx, CallbackCx, Sleepable},
    notifier::{
        Ack, ExternalMmu, FirstPass, Gate, Invalidation, NoStore, Seat, SecondPass, WouldBlock,
    },
    sync::{AtomicBool, AtomicU64, Mutex, Ordering, thread},
};
use std::{sync::Arc, time::Duration};

type Act = Box<dyn FnOnce(VpnRange) + Send>;

/// A driver without translations that acts inside of windows; see the module.
pub(super) struct Neighbour {
    gate: Gate<NoStore, (), Sleepable>,
    /// The number of the window from now, and the action at its beginning.
    at_start: Mutex<Option<(u64, Act)>>,
    refuses: AtomicBool,
    /// The number, from 1, of the atomic window that the neighbour refuses; 0: none.
    refused: AtomicU64,
    tries: AtomicU64,
    windows: AtomicU64,
    /// Duration of each callback in microseconds.
    delay: AtomicU64,
}

impl Neighbour {
    pub(super) fn new(seat: Seat) -> Arc<Self> {
        Arc::new(Self {
            gate: Gate::new(seat, NoStore, ()),
            at_start: Mutex::default(),
            refuses: AtomicBool::new(false),
            refused: AtomicU64::new(0),
            tries: AtomicU64::new(0),
            windows: AtomicU64::new(0),
            delay: AtomicU64::new(0),
        })
    }
    /// Runs `act` at the beginning of the next window, on the window's thread.
    pub(super) fn at_next_start(&self, act: impl FnOnce(VpnRange) + Send + 'static) {
        self.at_start(1, act);
    }
    /// Runs `act` at the beginning of the `nth` window from now, from 1, on the window's thread.
    pub(super) fn at_start(&self, nth: u64, act: impl FnOnce(VpnRange) + Send + 'static) {
        *self.at_start.lock() = Some((nth, Box::new(act)));
    }
    /// Returns the number of windows so far whose contexts may sleep.
    pub(super) fn windows(&self) -> u64 {
        self.windows.load(Ordering::Relaxed)
    }
    /// Refuses the `nth` atomic window since the registration, from 1.
    pub(super) fn refuse_one(&self, nth: u64) {
        self.refused.store(nth, Ordering::Relaxed);
    }
    /// Returns the number of atomic windows so far.
    pub(super) fn tries(&self) -> u64 {
        self.tries.load(Ordering::Relaxed)
    }
    /// Sets whether the neighbour refuses all atomic windows. Default: no.
    pub(super) fn refuse(&self, refuse: bool) {
        self.refuses.store(refuse, Ordering::Relaxed);
    }
    /// Sets the duration of each callback.
    pub(super) fn delay(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.delay.store(micros, Ordering::Relaxed);
    }
    fn dawdle(&self) {
        match self.delay.load(Ordering::Relaxed) {
            0 => {}
            micros => thread::sleep(Duration::from_micros(micros)),
        }
    }
}

impl ExternalMmu for Neighbour {
    fn invalidate_start<'i>(&self, cx: CallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        self.windows.fetch_add(1, Ordering::Relaxed);
        let due = {
            let mut at_start = self.at_start.lock();
            match &mut *at_start {
                Some((left, _)) if *left > 1 => {
                    *left -= 1;
                    None
                }
                _ => at_start.take(),
            }
        };
        if let Some((_, act)) = due {
            act(inv.range());
        }
        self.dawdle();
        self.gate.exclude(cx, inv, |(), _, _| ())
    }
    /// Acts in the second pass: devices of two passes have not acknowledged in the first.
    fn invalidate_begin<'s, 'i>(
        &'s self,
        _cx: CallbackCx<'_>,
        inv: Invalidation<'i>,
    ) -> FirstPass<'i, SecondPass<'s>> {
        inv.defer(move |cx, inv| self.invalidate_start(cx, inv))
    }
    fn try_invalidate_start<'i>(
        &self,
        cx: AtomicCallbackCx<'_>,
        inv: Invalidation<'i>,
    ) -> Result<Ack<'i>, WouldBlock> {
        let nth = self.tries.fetch_add(1, Ordering::Relaxed) + 1;
        let chosen = nth == self.refused.load(Ordering::Relaxed);
        if chosen || self.refuses.load(Ordering::Relaxed) {
            return Err(WouldBlock);
        }
        self.gate.try_exclude(cx, inv, |(), _| ())
    }
    fn invalidate_end(&self, _cx: AtomicCallbackCx<'_>, _range: VpnRange) {
        self.dawdle();
    }
    fn name(&self) -> &'static str {
        "a neighbour"
    }
}
