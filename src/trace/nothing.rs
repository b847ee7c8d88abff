//! The functions of a library without spans: nothing.

use super::Pass;
use crate::addr::{Vpn, VpnRange};

/// No span.
#[must_use]
pub(crate) struct InSpan;

#[inline(always)]
pub(crate) fn call(_name: &'static str, _start: u64, _len: u64) -> InSpan {
    InSpan
}
#[inline(always)]
pub(crate) fn window<R>(_range: VpnRange, _reason: R) -> InSpan {
    InSpan
}
#[inline(always)]
pub(crate) fn callback<N>(_mmu: N, _range: VpnRange, _pass: Pass) -> InSpan
where
    N: FnOnce() -> &'static str,
{
    InSpan
}
#[inline(always)]
pub(crate) fn fault<A>(_page: Vpn, _access: A) -> InSpan {
    InSpan
}
#[inline(always)]
pub(crate) fn resolve<N, A>(_mmu: N, _range: VpnRange, _access: A) -> InSpan
where
    N: FnOnce() -> &'static str,
{
    InSpan
}
#[inline(always)]
pub(crate) fn asked<N: FnOnce() -> &'static str>(_mmu: N, _page: Vpn) {}
#[inline(always)]
pub(crate) fn admitted<N: FnOnce() -> &'static str>(_mmu: N, _range: VpnRange) {}
