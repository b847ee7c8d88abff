//! The guard of a driver's gate.

use super::{
    cached::Cached,
    deferred_unpin::DeferredUnpins,
    guarded_store::{GuardedStore, pass_on_dirty},
    removed::RemovedEntries,
    seat::Seat,
    shadow_entry::ShadowEntry,
    store::{Rearrange, ShadowStore},
};
use crate::{
    addr::VpnRange,
    ctx::{Context, Cx, rank},
    frame::{FrameView, FrameViewMut, PhysMem},
    sync::MutexGuard,
};

/// The gate is held.
#[must_use = "the gate is held only while this lives"]
pub struct GateGuard<'p, S: ShadowStore, T, C: Context> {
    pub(super) guarded: MutexGuard<'p, GuardedStore<S, T>>,
    /// Behind the lock: it is let go first.
    deferred: DeferredUnpins<'p>,
    pub(super) mem: &'p PhysMem,
    pub(super) cx: Cx<'p, rank::Gate, C>,
}

impl<'p, S: ShadowStore, T, C: Context> GateGuard<'p, S, T, C> {
    pub(super) fn new(
        guarded: MutexGuard<'p, GuardedStore<S, T>>,
        seat: &'p Seat,
        cx: Cx<'p, rank::Gate, C>,
    ) -> Self {
        Self {
            guarded,
            deferred: DeferredUnpins::new(seat),
            mem: &seat.mem,
            cx,
        }
    }
    /// Driver state.
    pub fn state(&mut self) -> &mut T {
        &mut self.guarded.state
    }
    /// The store, to look at.
    pub fn store(&self) -> &S {
        &self.guarded.store
    }
    /// Store and state at once.
    pub fn parts(&mut self) -> (&S, &mut T) {
        let guarded = &mut *self.guarded;
        (&guarded.store, &mut guarded.state)
    }
    /// Has the store rearranged in a way of its own. Cached copies of what had to go for it must be flushed by `flush`, before
    /// the references that went with the entries are given up.
    pub fn rearrange(&mut self, how: S::How, flush: impl FnOnce(&mut T))
    where
        S: Rearrange,
    {
        let gone = self.guarded.rearrange(how);
        flush(&mut self.guarded.state);
        self.discard(gone);
    }
    /// Follows an established translation; of a huge page, its first frame.
    pub fn lookup(&self, key: &S::Key) -> Option<FrameView<'_>> {
        let t = self.guarded.get(key)?.translation();
        Some(self.mem.view(t.pfn(), t.generation()))
    }
    /// Follows one that was established for writing.
    pub fn lookup_mut(&mut self, key: &S::Key) -> Option<FrameViewMut<'_>> {
        let entry = self.guarded.get(key).filter(|e| e.is_writable())?;
        let t = entry.translation();
        Some(self.mem.view_mut(t.pfn(), t.generation()))
    }
    /// Copies a translation for a TLB, which must be filled while the gate is held, or by hardware that ignores what
    /// comes too late.
    pub fn cached(&self, key: &S::Key) -> Option<Cached> {
        Some(Cached(self.guarded.get(key)?.translation()))
    }
    /// The same if `want` says so, which may set the entry's marks.
    pub fn cached_if(
        &self,
        key: &S::Key,
        want: impl FnOnce(&ShadowEntry) -> bool,
    ) -> Option<Cached> {
        let entry = self.guarded.get(key).filter(|e| want(e))?;
        Some(Cached(entry.translation()))
    }
    /// Gives up a translation. Cached copies must be flushed before this gate is let go: then the references of what was given
    /// up go.
    pub fn forget(&mut self, key: &S::Key) {
        let gone = self.guarded.remove(key);
        self.discard(gone);
    }
    /// Gives up the translations of a range, which nobody asked for; whether there were any. Cached copies must be
    /// flushed by `flush`: the references that went with them go when this gate is let go.
    pub fn forget_range(&mut self, range: VpnRange, flush: impl FnOnce(&mut T)) -> bool {
        let gone = self.guarded.zap(range);
        let any = !gone.is_empty();
        flush(&mut self.guarded.state);
        self.discard(gone);
        any
    }
    /// Passes on the dirty bits of entries that left the store. Their references go when this gate is let go.
    pub(super) fn discard(&mut self, mut gone: RemovedEntries) {
        pass_on_dirty(self.mem, &gone);
        let store = &self.guarded.store;
        self.deferred.take(&mut gone, |t| {
            let mut held = false;
            store.for_each_in(t.range(), &mut |e| {
                held |= e.is_pinned() && e.pfn() == t.pfn()
            });
            held
        });
    }
    /// Token usable while the gate is held.
    pub fn cx(&mut self) -> Cx<'_, rank::Gate, C> {
        self.cx.reborrow()
    }
}

impl<S: ShadowStore, T, C: Context> Drop for GateGuard<'_, S, T, C> {
    #[inline]
    fn drop(&mut self) {
        self.deferred.close();
    }
}
