//! One callback for a driver whose gate spins.
//!
//! A window that may sleep and one that must not ask such a driver the same, and get the same
//! answer. So the driver writes its callback once, for an atomic context, where everything that it
//! may do is allowed in the other as well.
//!
//! The other callbacks are declared once more, with the same defaults. A trait of these callbacks
//! that both kinds of driver share would remove that, but then every driver has a second `impl`; a
//! wrapper `Spinning<D>` would hide the driver's own type behind its registration.

use crate::{
    addr::VpnRange,
    ctx::{AtomicCallbackCx, CallbackCx},
    notifier::{Ack, AgeKind, ExternalMmu, Invalidation, Translation, WouldBlock, name_of_type},
};

/// An external MMU that never blocks, with one callback for every window.
///
/// Each type with this trait is an [`ExternalMmu`]: [`invalidate`](Self::invalidate) answers
/// [`invalidate_start`](ExternalMmu::invalidate_start) and
/// [`try_invalidate_start`](ExternalMmu::try_invalidate_start), so no window is refused. The token
/// is an atomic one, and an atomic token passes only a gate that spins:
///
/// ```compile_fail,E0308
/// use emmu::driver::*;
///
/// struct Sleeper(Gate<OrderedStore<Vpn>, (), Sleepable>);
///
/// impl SpinningMmu for Sleeper {
///     fn invalidate<'i>(&self, cx: AtomicCallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
///         self.0.exclude(cx, inv, |(), _, _| ()) // the gate wants a token that may sleep
///     }
/// }
/// ```
///
/// The other methods are those of [`ExternalMmu`], with the same defaults and the same contracts.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an external MMU that spins",
    note = "implement `SpinningMmu`: its `invalidate` passes the gate and returns the `Ack` that it gets there"
)]
pub trait SpinningMmu: Send + Sync {
    /// Drops every reference into the range, and gives out none until the end.
    fn invalidate<'i>(&self, cx: AtomicCallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i>;

    /// See [`ExternalMmu::invalidate_end`]. The default does nothing.
    fn invalidate_end(&self, cx: AtomicCallbackCx<'_>, range: VpnRange) {
        let _unused = (cx, range);
    }

    /// See [`ExternalMmu::age`]. The default answers that no page was used.
    fn age(&self, cx: AtomicCallbackCx<'_>, range: VpnRange, kind: AgeKind) -> bool {
        let _unused = (cx, range, kind);
        false
    }

    /// See [`ExternalMmu::name`]. The default is the name of the type.
    fn name(&self) -> &'static str {
        name_of_type::<Self>()
    }

    /// See [`ExternalMmu::translations`]. The default is right for a driver without any.
    fn translations(&self, visit: &mut dyn FnMut(Translation)) -> bool {
        let _unused = visit;
        true
    }

    /// See [`ExternalMmu::translations_in`]. The default looks at all translations.
    fn translations_in(&self, range: VpnRange, visit: &mut dyn FnMut(Translation)) -> bool {
        self.translations(&mut |t| {
            if t.range().overlaps(range) {
                visit(t);
            }
        })
    }

    /// See [`ExternalMmu::windows`]. The default is right for a driver that does not count.
    fn windows(&self) -> u64 {
        0
    }

    /// See [`ExternalMmu::release`]. The default does nothing.
    fn release(&self, cx: CallbackCx<'_>) {
        let _unused = cx;
    }
}

impl<D: SpinningMmu> ExternalMmu for D {
    fn invalidate_start<'i>(&self, mut cx: CallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        self.invalidate(cx.non_blocking(), inv)
    }
    fn try_invalidate_start<'i>(
        &self,
        cx: AtomicCallbackCx<'_>,
        inv: Invalidation<'i>,
    ) -> Result<Ack<'i>, WouldBlock> {
        Ok(self.invalidate(cx, inv))
    }
    fn invalidate_end(&self, cx: AtomicCallbackCx<'_>, range: VpnRange) {
        SpinningMmu::invalidate_end(self, cx, range);
    }
    fn age(&self, cx: AtomicCallbackCx<'_>, range: VpnRange, kind: AgeKind) -> bool {
        SpinningMmu::age(self, cx, range, kind)
    }
    fn name(&self) -> &'static str {
        SpinningMmu::name(self)
    }
    fn translations(&self, visit: &mut dyn FnMut(Translation)) -> bool {
        SpinningMmu::translations(self, visit)
    }
    fn translations_in(&self, range: VpnRange, visit: &mut dyn FnMut(Translation)) -> bool {
        SpinningMmu::translations_in(self, range, visit)
    }
    fn windows(&self) -> u64 {
        SpinningMmu::windows(self)
    }
    fn release(&self, cx: CallbackCx<'_>) {
        SpinningMmu::release(self, cx);
    }
}
