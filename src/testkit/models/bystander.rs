//! A driver on the chain that speaks for others, which are not on it themselves.

use crate::{
    ctx::{Atomic, AtomicCallbackCx, CallbackCx},
    driver::SpinningMmu,
    notifier::{Ack, Gate, Invalidation, NoStore, Seat, Translation},
};
use std::sync::Arc;

type Show = Box<dyn Fn(&mut dyn FnMut(Translation)) -> bool + Send + Sync>;
type Release = Box<dyn Fn() + Send + Sync>;

/// A driver without translations: it shows those of others, and tells them of the end of the
/// address space.
pub(in crate::testkit) struct Bystander {
    gate: Gate<NoStore, (), Atomic>,
    show: Show,
    release: Release,
}

impl Bystander {
    pub(in crate::testkit) fn new(
        seat: Seat,
        show: impl Fn(&mut dyn FnMut(Translation)) -> bool + Send + Sync + 'static,
        release: impl Fn() + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            gate: Gate::new(seat, NoStore, ()),
            show: Box::new(show),
            release: Box::new(release),
        })
    }
}

impl SpinningMmu for Bystander {
    fn invalidate<'i>(&self, cx: AtomicCallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        self.gate.exclude(cx, inv, |(), _, _| ())
    }
    fn release(&self, cx: CallbackCx<'_>) {
        let _unused = cx;
        (self.release)();
    }
    fn translations(&self, visit: &mut dyn FnMut(Translation)) -> bool {
        (self.show)(visit)
    }
}
