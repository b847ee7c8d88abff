//! The callbacks of a virtual machine: the beginnings and ends of windows, aging, and audits.

use super::{
    config::{AccessedBits, KvmMistake},
    memslot::MemSlots,
    shadow::ShadowPages,
    vm::{State, Vm},
};
use crate::{
    addr::{Vpn, VpnRange},
    ctx::{Atomic, AtomicCallbackCx, CallbackCx},
    driver::SpinningMmu,
    notifier::{Ack, AgeKind, GateGuard, Invalidation, ShadowEntry, ShadowStore, Translation},
    sync::Ordering,
};
use std::sync::{Arc, Weak};

type Gate<'p> = GateGuard<'p, ShadowPages, State, Atomic>;

/// The most pages that are flushed one by one.
const FEW: u64 = 512;

impl State {
    /// Flushes some pages from these TLBs, or everything if the pages are many.
    fn flush_pages(&mut self, slots: &MemSlots, range: VpnRange) {
        match range.pages() > FEW {
            true => self.tlbs.flush(),
            false => self.tlbs.flush_gfns(|| slots.gfns(range)),
        }
    }
}

impl Vm {
    fn flush_for(&self, store: &ShadowPages, state: &mut State, range: VpnRange) {
        match self.config.mistake {
            Some(KvmMistake::NoFlush | KvmMistake::LateFlush) => {}
            Some(KvmMistake::ShortFlush) => {
                if let Some(part) = VpnRange::new(range.start(), Vpn(range.end().0 - 1)) {
                    state.flush_pages(store.slots(), part);
                }
            }
            _ => {
                state.flush_pages(store.slots(), range);
                self.meter.acknowledged(state.tlbs.len());
            }
        }
    }
    /// Adds `by` to the number of windows over slots, at the gate that the window begins in.
    fn count_over_slots(&self, home: usize, place: usize, by: u64) {
        if place == home {
            let count = &self.shares[home].0.over_slots;
            count.fetch_add(by, Ordering::Relaxed);
        }
    }
    /// Ends a window at one gate.
    fn end_at(&self, home: usize, place: usize, state: &mut State) {
        // Release: a fault that no longer finds the window in progress must find the sequence
        // advanced.
        self.shares[place].0.seq.fetch_add(1, Ordering::Release);
        state.account.end();
        self.count_over_slots(home, place, u64::MAX);
    }
    /// Ages the entries of one gate, and returns true if one was young.
    fn age_at(&self, gate: &mut Gate<'_>, range: VpnRange, kind: AgeKind) -> bool {
        let mut young = false;
        match (self.config.accessed, kind) {
            (AccessedBits::Absent, AgeKind::Test) => {
                gate.store().in_hvas(range, &mut |_| young = true);
            }
            (AccessedBits::Absent, _) => young = gate.forget_range(range, |s| s.tlbs.flush()),
            (AccessedBits::Present, AgeKind::Test) => {
                gate.store()
                    .in_hvas(range, &mut |e| young |= e.is_accessed());
            }
            (AccessedBits::Present, _) => {
                gate.store()
                    .in_hvas(range, &mut |e| young |= e.clear_accessed());
                // Without the flush a processor goes on without setting the bit: a hint may be
                // wrong.
                if young && kind == AgeKind::ClearFlush {
                    gate.state().tlbs.flush();
                }
            }
        }
        young
    }
}

impl SpinningMmu for Vm {
    /// The mmu lock spins, so no window is refused.
    fn invalidate<'i>(&self, mut cx: AtomicCallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        let range = inv.range();
        let home = self.gates.place_of(range.start());
        // The slots do not change from here on.
        self.active.begin(home);
        self.meter.begin(range);
        // Before the mmu lock: a cache that becomes valid after this finds the window on the board.
        if !self.made(KvmMistake::DeafCache) {
            self.invalidate_caches(range);
        }
        self.gates
            .exclude_with(&mut cx, inv, |place, store, state, zapped| {
                let mut hit = false;
                for (first, end) in store.slots().gfns(range) {
                    hit = true;
                    state.account.forbid(first, end);
                }
                if hit {
                    state.account.begin();
                    self.count_over_slots(home, place, 1);
                }
                // An entry made without validation is in no table, so the flush must come all the
                // same.
                if !zapped.entries().is_empty() || self.made(KvmMistake::NoRetry) {
                    let pages = zapped.entries().iter().map(ShadowEntry::range);
                    self.meter.dropped_all(pages);
                    self.flush_for(store, state, range);
                }
            })
    }
    fn invalidate_end(&self, mut cx: AtomicCallbackCx<'_>, range: VpnRange) {
        let home = self.gates.place_of(range.start());
        self.gates.each(&mut cx, range, |place, gate| {
            let hit = gate.store().slots().gfns(range).next().is_some();
            if self.made(KvmMistake::LateFlush) {
                gate.state().tlbs.flush();
            }
            if hit && !self.made(KvmMistake::LostEnd) {
                self.end_at(home, place, gate.state());
            }
        });
        self.meter.end(range);
        self.active.end(home);
    }
    fn age(&self, mut cx: AtomicCallbackCx<'_>, range: VpnRange, kind: AgeKind) -> bool {
        self.meter.aged();
        let mut young = false;
        self.gates.each(&mut cx, range, |_, gate| {
            young |= self.age_at(gate, range, kind)
        });
        young
    }
    fn name(&self) -> &'static str {
        "KVM"
    }
    fn windows(&self) -> u64 {
        // Windows over slots that the machine has lost count of hold guests off as well.
        let (active, over_slots) = self.in_progress();
        active.max(over_slots)
    }
    fn translations(&self, visit: &mut dyn FnMut(Translation)) -> bool {
        let seen = self.gates.audited(VpnRange::ALL, |store| {
            store.for_each(&mut |e| visit(e.translation()));
        });
        let tlbs = self.tlbs.read().clone();
        for tlb in tlbs {
            let tlb = tlb.lock();
            tlb.process.iter().for_each(|(_, c)| visit(c.translation()));
        }
        for cache in self.caches.lock().iter().filter_map(Weak::upgrade) {
            cache.show(visit);
        }
        seen
    }
    fn translations_in(&self, range: VpnRange, visit: &mut dyn FnMut(Translation)) -> bool {
        let mut slots = Arc::default();
        let seen = self.gates.audited(range, |store| {
            slots = Arc::clone(store.slots());
            store.for_each_in(range, &mut |e| visit(e.translation()));
        });
        for tlb in self.tlbs.read().iter() {
            let tlb = tlb.lock();
            for (first, end) in slots.gfns(range) {
                tlb.process
                    .for_each_in(0, first.0, end.0, &mut |c| visit(c.translation()));
            }
        }
        for cache in self.caches.lock().iter().filter_map(Weak::upgrade) {
            cache.show(&mut |t| {
                if t.range().overlaps(range) {
                    visit(t);
                }
            });
        }
        seen
    }
    /// The guest's private pages go with the address space, as its other entries do
    /// (`kvm_flush_shadow_all`).
    fn release(&self, _: CallbackCx<'_>) {
        self.guest.release();
    }
}
