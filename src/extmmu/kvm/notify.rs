//! What a window does to a virtual machine.

use super::{AccessedBits, Gfn, Mistake, State, Vm};
use crate::{
    addr::{Vpn, VpnRange},
    ctx::{Atomic, Context, Cx, EnterFrom, Sleepable, rank},
    notifier::{Ack, AgeKind, ExternalMmu, Invalidation, ShadowStore, Translation, WouldBlock},
    sync::Ordering,
};

impl State {
    /// Flushes the TLBs of all processors and waits for them: each is between two instructions when its lock is had.
    pub(super) fn flush(&mut self) {
        for tlb in &self.tlbs {
            tlb.lock().clear();
        }
        self.flushes += 1;
    }
    fn flush_pages(&mut self, range: VpnRange) {
        for tlb in &self.tlbs {
            tlb.lock()
                .retain(|_, cached| !cached.range().overlaps(range));
        }
    }
    /// One more window over these guest frames.
    fn forbid(&mut self, first: Gfn, end: Gfn) {
        self.forbidden = Some(match self.forbidden {
            Some((s, e)) => (s.min(first), e.max(end)),
            None => (first, end),
        });
    }
}

impl Vm {
    fn start<'i, C: Context>(
        &self,
        mut cx: Cx<'_, rank::Callback, C>,
        inv: Invalidation<'i>,
    ) -> Ack<'i>
    where
        Atomic: EnterFrom<C>,
    {
        *self.active.lock() += 1;
        self.meter.begin(inv.range());
        // Before the mmu lock: a cache that becomes valid after this finds the window on the board.
        if !self.made(Mistake::DeafCache) {
            self.invalidate_caches(inv.range());
        }
        // Slots are frozen from here on.
        let slots = std::sync::Arc::clone(self.gate.lock(&mut cx).store().slots());
        self.gate.exclude_with(&mut cx, inv, |state, zapped, _| {
            let mut hit = false;
            for (first, end) in slots
                .overlapping(zapped.range())
                .filter_map(|s| s.gfns(zapped.range()))
            {
                hit = true;
                state.forbid(first, end);
            }
            state.in_progress += u64::from(hit);
            self.over_slots.store(state.in_progress, Ordering::Relaxed);
            for entry in zapped.entries() {
                self.meter.dropped(entry.range());
            }
            // What was entered without asking is in no table: there is something to flush all the same.
            if !zapped.entries().is_empty() || self.made(Mistake::NoRetry) {
                self.flush_for(state, zapped.range());
            }
        })
    }
    fn flush_for(&self, state: &mut State, range: VpnRange) {
        match self.config.mistake {
            Some(Mistake::NoFlush | Mistake::LateFlush) => {}
            Some(Mistake::ShortFlush) => {
                if let Some(part) = VpnRange::new(range.start(), Vpn(range.end().0 - 1)) {
                    state.flush_pages(part);
                }
            }
            _ => {
                state.flush();
                self.meter.acknowledged(state.tlbs.len() as u64);
            }
        }
    }
}

impl ExternalMmu for Vm {
    fn invalidate_start<'i>(
        &self,
        cx: Cx<'_, rank::Callback, Sleepable>,
        inv: Invalidation<'i>,
    ) -> Ack<'i> {
        self.start(cx, inv)
    }
    /// The mmu lock spins: there is never a reason to refuse.
    fn try_invalidate_start<'i>(
        &self,
        cx: Cx<'_, rank::Callback, Atomic>,
        inv: Invalidation<'i>,
    ) -> Result<Ack<'i>, WouldBlock> {
        Ok(self.start(cx, inv))
    }
    fn invalidate_end(&self, mut cx: Cx<'_, rank::Callback, Atomic>, range: VpnRange) {
        let mut guard = self.gate.lock(&mut cx);
        let hit = guard.store().slots().overlapping(range).next().is_some();
        let hit = hit && !self.made(Mistake::LostEnd);
        if self.made(Mistake::LateFlush) {
            guard.state().flush();
        }
        if hit {
            // The sequence first: who no longer finds the window in progress finds that it has been.
            self.seq.fetch_add(1, Ordering::Release);
            let state = guard.state();
            state.in_progress = state
                .in_progress
                .checked_sub(1)
                .expect("the slots of a window's end are those of its beginning");
            self.over_slots.store(state.in_progress, Ordering::Relaxed);
            if state.in_progress == 0 {
                state.forbidden = None;
            }
        }
        drop(guard);
        self.meter.end(range);
        let mut active = self.active.lock();
        *active -= 1;
        if *active == 0 {
            drop(active);
            self.idle.notify_all();
        }
    }
    fn age(&self, mut cx: Cx<'_, rank::Callback, Atomic>, range: VpnRange, kind: AgeKind) -> bool {
        self.meter.aged();
        let mut guard = self.gate.lock(&mut cx);
        let mut young = false;
        match (self.config.accessed, kind) {
            (AccessedBits::Absent, AgeKind::Test) => {
                guard.store_mut().in_hvas(range, &mut |_| young = true);
            }
            (AccessedBits::Absent, _) => young = guard.forget_range(range, State::flush),
            (AccessedBits::Present, AgeKind::Test) => {
                guard
                    .store_mut()
                    .in_hvas(range, &mut |e| young |= e.is_accessed());
            }
            (AccessedBits::Present, _) => {
                guard
                    .store_mut()
                    .in_hvas(range, &mut |e| young |= e.clear_accessed());
                // Without the flush a processor goes on without setting the bit: a hint may be wrong.
                if young && kind == AgeKind::ClearFlush {
                    guard.state().flush();
                }
            }
        }
        young
    }
    fn name(&self) -> &'static str {
        "KVM"
    }
    fn windows(&self) -> u64 {
        // Those over slots that it has lost count of hold guests off as well.
        self.active_windows()
            .max(self.over_slots.load(Ordering::Relaxed))
    }
    fn translations(&self, visit: &mut dyn FnMut(Translation)) -> bool {
        let seen = self.gate.audit(visit);
        let tlbs = self.tlbs.read().clone();
        for tlb in tlbs {
            tlb.lock().iter().for_each(|(_, c)| visit(c.translation()));
        }
        for cache in self
            .caches
            .lock()
            .iter()
            .filter_map(std::sync::Weak::upgrade)
        {
            cache.show(visit);
        }
        seen
    }
    fn translations_in(&self, range: VpnRange, visit: &mut dyn FnMut(Translation)) -> bool {
        let mut slots = None;
        let seen = self.gate.audited(|store| {
            slots = Some(std::sync::Arc::clone(store.slots()));
            store.for_each_in(range, &mut |e| visit(e.translation()));
        });
        let slots = slots.unwrap_or_default();
        for tlb in self.tlbs.read().iter() {
            let tlb = tlb.lock();
            for (first, end) in slots.overlapping(range).filter_map(|s| s.gfns(range)) {
                tlb.for_each_in(0, first.0, end.0, &mut |c| visit(c.translation()));
            }
        }
        for cache in self
            .caches
            .lock()
            .iter()
            .filter_map(std::sync::Weak::upgrade)
        {
            cache.show(&mut |t| {
                if t.range().overlaps(range) {
                    visit(t);
                }
            });
        }
        seen
    }
}
