//! An external MMU beside the one on trial: it has no translations, and acts at the moments that the chain gives it.
//!
//! Who registered last is asked first. A neighbour that registered before the device is asked after it: then the device
//! has acknowledged, and no entry has changed yet. One that registered after it is asked before.

use crate::{
    addr::VpnRange,
    ctx::{Atomic, Cx, Sleepable, rank},
    notifier::{Ack, Begun, ExternalMmu, Finish, Gate, Invalidation, NoStore, Seat, WouldBlock},
    sync::{AtomicBool, AtomicU64, Mutex, Ordering},
};
use std::{sync::Arc, time::Duration};

type Act = Box<dyn FnOnce(VpnRange) + Send>;

/// See the module.
pub(super) struct Neighbour {
    gate: Gate<NoStore, (), Sleepable>,
    at_start: Mutex<Option<Act>>,
    refuses: AtomicBool,
    /// Microseconds that each callback takes.
    delay: AtomicU64,
}

impl Neighbour {
    pub(super) fn new(seat: Seat) -> Arc<Self> {
        Arc::new(Self {
            gate: Gate::new(seat, NoStore, ()),
            at_start: Mutex::default(),
            refuses: AtomicBool::new(false),
            delay: AtomicU64::new(0),
        })
    }
    /// At the beginning of the next window, `act` is run on the window's thread.
    pub(super) fn at_next_start(&self, act: impl FnOnce(VpnRange) + Send + 'static) {
        *self.at_start.lock() = Some(Box::new(act));
    }
    /// Refuses windows of atomic contexts, or not. It does not at first.
    pub(super) fn refuse(&self, refuse: bool) {
        self.refuses.store(refuse, Ordering::Relaxed);
    }
    /// Lets its callbacks take that long.
    pub(super) fn delay(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.delay.store(micros, Ordering::Relaxed);
    }
    fn dawdle(&self) {
        match self.delay.load(Ordering::Relaxed) {
            0 => {}
            micros => std::thread::sleep(Duration::from_micros(micros)),
        }
    }
}

impl ExternalMmu for Neighbour {
    fn invalidate_start<'i>(
        &self,
        cx: Cx<'_, rank::Callback, Sleepable>,
        inv: Invalidation<'i>,
    ) -> Ack<'i> {
        let act = self.at_start.lock().take();
        if let Some(act) = act {
            act(inv.range());
        }
        self.dawdle();
        self.gate.exclude(cx, inv, |(), _, _| ())
    }
    /// In the second pass: devices of two passes have not acknowledged in the first.
    fn invalidate_begin<'s, 'i>(
        &'s self,
        _cx: Cx<'_, rank::Callback, Sleepable>,
        inv: Invalidation<'i>,
    ) -> Begun<'i, Finish<'s>> {
        inv.later(move |cx, inv| self.invalidate_start(cx, inv))
    }
    fn try_invalidate_start<'i>(
        &self,
        cx: Cx<'_, rank::Callback, Atomic>,
        inv: Invalidation<'i>,
    ) -> Result<Ack<'i>, WouldBlock> {
        if self.refuses.load(Ordering::Relaxed) {
            return Err(WouldBlock);
        }
        self.gate.try_exclude(cx, inv, |(), _| ())
    }
    fn invalidate_end(&self, _cx: Cx<'_, rank::Callback, Atomic>, _range: VpnRange) {
        self.dawdle();
    }
    fn name(&self) -> &'static str {
        "a neighbour"
    }
}
