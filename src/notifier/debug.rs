//! `Debug` of the parts that drivers are made of, so that a driver can derive it. It takes no lock,
//! and shows no translation.

use super::{
    driver::FirstPass,
    gate::Gate,
    gate_guard::GateGuard,
    gates::Gates,
    permit::{Pending, Permit},
    range_permit::{RangePending, RangePermit},
    range_ticket::RangeTicket,
    store::ShadowStore,
    ticket::{Seated, Ticket},
    tlb_gate::TlbGate,
};
use crate::ctx::Context;
use std::fmt::{Debug, Formatter, Result};

impl<S: ShadowStore, T, C: Context> Debug for Gate<S, T, C> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}
impl<S: ShadowStore, T, C: Context> Debug for Gates<S, T, C> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("Gates")
            .field("count", &self.count())
            .finish_non_exhaustive()
    }
}
impl<T> Debug for TlbGate<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("TlbGate").finish_non_exhaustive()
    }
}
impl<S: ShadowStore, T, C: Context> Debug for GateGuard<'_, S, T, C> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("GateGuard").finish_non_exhaustive()
    }
}
impl<G> Debug for Ticket<'_, G> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("Ticket")
            .field("page", &self.vpn())
            .field("access", &self.access())
            .finish_non_exhaustive()
    }
}
impl<G: Seated> Debug for Pending<'_, G> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("Pending")
            .field("pages", &self.range())
            .finish_non_exhaustive()
    }
}
impl<S: ShadowStore, T, C: Context> Debug for Permit<'_, S, T, C> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("Permit")
            .field("pages", &self.range())
            .field("writable", &self.is_writable())
            .finish_non_exhaustive()
    }
}
impl<F> Debug for FirstPass<'_, F> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(match self {
            Self::Done(_) => "Done",
            Self::Deferred(_) => "Deferred",
        })
    }
}
impl<G> Debug for RangeTicket<'_, G> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("RangeTicket")
            .field("range", &self.range)
            .field("stopped", &self.stopped)
            .finish_non_exhaustive()
    }
}
impl<G> Debug for RangePending<'_, G> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("RangePending")
            .field("range", &self.range())
            .field("stopped", &self.stopped())
            .finish_non_exhaustive()
    }
}
impl<S: ShadowStore, T, C: Context> Debug for RangePermit<'_, S, T, C> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("RangePermit")
            .field("range", &self.range())
            .field("stopped", &self.stopped())
            .finish_non_exhaustive()
    }
}
