//! The functions of a library with spans.

use super::Pass;
use crate::addr::{Vpn, VpnRange};
use std::fmt::Debug;
use tracing::{debug_span, span::EnteredSpan, trace, trace_span};

/// A span that is left when this is dropped.
#[must_use]
pub(crate) struct InSpan(#[expect(dead_code, reason = "dropped")] EnteredSpan);

/// A call of the address space or of the machine.
#[inline]
pub(crate) fn call(name: &'static str, start: u64, len: u64) -> InSpan {
    InSpan(debug_span!("call", name, start, len).entered())
}
/// A window, from its announcement to its end.
#[inline]
pub(crate) fn window<R: Debug>(range: VpnRange, reason: R) -> InSpan {
    InSpan(debug_span!("window", %range, ?reason).entered())
}
/// The call of a driver by a window.
#[inline]
pub(crate) fn callback<N>(mmu: N, range: VpnRange, pass: Pass) -> InSpan
where
    N: FnOnce() -> &'static str,
{
    let pass = match pass {
        Pass::Start => "start",
        Pass::Finish => "finish",
        Pass::End => "end",
    };
    InSpan(debug_span!("callback", mmu = mmu(), %range, pass).entered())
}
/// A step of a fault.
#[inline]
pub(crate) fn fault<A: Debug>(page: Vpn, access: A) -> InSpan {
    InSpan(trace_span!("fault", page = page.0, ?access).entered())
}
/// The look-up of a driver, which may fault.
#[inline]
pub(crate) fn resolve<N, A: Debug>(mmu: N, range: VpnRange, access: A) -> InSpan
where
    N: FnOnce() -> &'static str,
{
    InSpan(trace_span!("resolve", mmu = mmu(), %range, ?access).entered())
}
/// A driver is about to have its look-up checked.
#[inline]
pub(crate) fn asked<N: FnOnce() -> &'static str>(mmu: N, page: Vpn) {
    trace!(name: "asked", mmu = mmu(), page = page.0);
}
/// The check has succeeded: a driver gets a translation.
#[inline]
pub(crate) fn admitted<N: FnOnce() -> &'static str>(mmu: N, range: VpnRange) {
    trace!(name: "admitted", mmu = mmu(), %range);
}
