//! The callbacks: windows, aging, audits.

use super::{engines::Engines, gpu::Gpu, mistake::GpuMistake};
use crate::{
    addr::VpnRange,
    ctx::AtomicCallbackCx,
    driver::SpinningMmu,
    notifier::{Ack, AgeKind, Invalidated, Invalidation, ShadowEntry, ShadowStore, Translation},
};

impl Gpu {
    /// Handles the entries that a window has removed. `own`: the window is of a migration to this
    /// GPU, and entries of its memory stay.
    fn removed(&self, engines: &mut Engines, gone: &Invalidated<'_>, own: bool) {
        let range = gone.range();
        engines.refused.retain(|at, _| !range.contains(*at));
        if !self.made(GpuMistake::KeepsAlone) {
            engines.alone.retain(|at| !range.contains(*at));
        }
        // Each translation in a TLB is of an entry, but for one that was never validated.
        if gone.entries().is_empty() && !self.made(GpuMistake::BatchVouched) {
            return;
        }
        self.meter
            .dropped_all(gone.entries().iter().map(ShadowEntry::range));
        match self.config.mistake {
            Some(GpuMistake::NoFlush | GpuMistake::LateFlush) => {}
            Some(GpuMistake::FiltersOwn) if own => {}
            Some(GpuMistake::SmallFlush) => engines.flush_small(range),
            Some(GpuMistake::FirstPageOnly) => engines.flush(range.start().into()),
            Some(GpuMistake::FirstEngineOnly) => engines.flush_first(1, range),
            _ => {
                engines.flush(range);
                self.meter.acknowledged(engines.count() as u64);
            }
        }
    }
}

impl SpinningMmu for Gpu {
    fn invalidate<'i>(&self, mut cx: AtomicCallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        self.meter.begin(inv.range());
        let spared = self
            .board
            .as_ref()
            .and_then(|board| inv.spare(&board.memory));
        match spared {
            Some(spared) => self
                .gate
                .exclude_sparing(cx, inv, spared, |engines, gone, _| {
                    self.removed(engines, gone, true);
                }),
            None => self.gate.exclude_with(&mut cx, inv, |engines, gone, _| {
                self.removed(engines, gone, false);
            }),
        }
    }
    fn invalidate_end(&self, mut cx: AtomicCallbackCx<'_>, range: VpnRange) {
        if self.made(GpuMistake::LateFlush) {
            self.gate.lock(&mut cx).state().flush(range);
        }
        self.meter.end(range);
    }
    fn age(&self, mut cx: AtomicCallbackCx<'_>, range: VpnRange, kind: AgeKind) -> bool {
        self.meter.aged();
        let mut gate = self.gate.lock(&mut cx);
        let mut young = false;
        gate.store().for_each_in(range, &mut |entry| {
            if self.made(GpuMistake::AgesSmallOnly) && entry.range().pages() > 1 {
                return;
            }
            young |= match kind {
                AgeKind::Test => entry.is_accessed(),
                AgeKind::Clear | AgeKind::ClearFlush => entry.clear_accessed(),
            };
        });
        // Without the flush an engine goes on without setting the bit: a hint may be wrong.
        if young && kind == AgeKind::ClearFlush {
            gate.state().flush(range);
        }
        young
    }
    fn name(&self) -> &'static str {
        "GPU"
    }
    fn translations(&self, visit: &mut dyn FnMut(Translation)) -> bool {
        self.translations_in(VpnRange::ALL, visit)
    }
    fn translations_in(&self, range: VpnRange, visit: &mut dyn FnMut(Translation)) -> bool {
        self.gate.audited_parts(|store, engines| {
            store.for_each_in(range, &mut |entry| visit(entry.translation()));
            engines.for_each_in(range, &mut |cached| visit(cached.translation()));
        })
    }
}
