//! Aging: was a page used since somebody last looked?

use crate::ctx::CallCx;
use crate::mm::space::Mm;
use crate::{
    addr::VpnRange,
    ctx::{Below, Cx, Sleepable, rank},
    notifier::AgeKind,
};
use std::convert::Infallible;

impl Mm {
    /// Whether a page of `range` was used since its accessed state was last cleared, by the processor or through any
    /// external MMU. All are asked, whatever the first says; unless `kind` is `Test`, all are cleared.
    pub fn age(&self, cx: &mut CallCx<'_>, range: VpnRange, kind: AgeKind) -> bool {
        let mut g = self.lock_shared_over(cx, Some(range));
        self.age_range(&mut g.cx, range, kind)
    }
    /// The same under whatever lock keeps the mappings.
    pub(in crate::mm) fn age_range<R: Below<rank::Callback>>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        range: VpnRange,
        kind: AgeKind,
    ) -> bool {
        let mut young = false;
        let pinned = cx.pin();
        self.table
            .leaves(range, self.table.pin(pinned.guard()), |part, leaf| {
                let Some(leaf) = leaf.lock() else {
                    return Ok(());
                };
                for at in part.iter() {
                    let pte = leaf.get(at);
                    if pte.is_present() && pte.is_young() {
                        young = true;
                        if kind != AgeKind::Test {
                            leaf.set(at, pte.mkold());
                        }
                    }
                }
                Ok::<(), Infallible>(())
            })
            .unwrap_or_else(|e| match e {});
        drop(pinned);
        self.notifiers.age(&mut cx.non_blocking(), range, kind) | young
    }
    /// Has an oracle look on at the windows of this address space, which has an external MMU.
    pub(crate) fn set_watch(&self, watch: std::sync::Arc<dyn crate::notifier::WindowObserver>) {
        self.notifiers.watch(watch);
    }
    /// The registration of a driver of this address space.
    pub(crate) fn registration_of(
        &self,
        ext: &std::sync::Arc<dyn crate::notifier::ExternalMmu>,
    ) -> Option<crate::notifier::RegId> {
        self.notifiers.registration_of(self.machine().epoch(), ext)
    }
    /// What `f` says, if no window was open over `range`, a page or pages of one 2-MiB block, while it ran.
    pub(crate) fn if_no_window<T>(&self, range: VpnRange, f: impl FnOnce() -> T) -> Option<T> {
        self.notifiers.if_no_window(range, f)
    }
    /// Invalidation windows open now, on whatever thread.
    pub fn windows_open(&self) -> usize {
        self.notifiers.windows_open()
    }
    /// Their ranges, if the address space has, or had, an external MMU. One that stays here was forgotten
    /// ([`std::mem::forget`]), and is what an unregistration or an exit that does not return is waiting for.
    pub fn open_windows(&self) -> Vec<VpnRange> {
        self.notifiers.open_windows()
    }
}
