//! The interfaces of a specimen: [`Device`] for the kit, and the driver's callbacks for the chain.

use super::specimen::{Flaw, Specimen};
use crate::{
    driver::{
        Access, Ack, AgeKind, AtomicCallbackCx, CallCx, CallbackCx, Invalidation, Mm, PAGE_SIZE,
        SpinningMmu, Translation, VpnRange,
    },
    testkit::device::{Declared, Device, Refused},
};

fn offset(addr: u64) -> usize {
    usize::try_from(addr % PAGE_SIZE).expect("less than a page")
}

impl Device for Specimen {
    fn read(&self, cx: &mut CallCx<'_>, mm: &Mm, addr: u64) -> Result<u8, Refused> {
        self.use_page(cx, mm, addr, Access::Read, |entry| {
            let view = self
                .gate
                .follow(&entry.cached, self.place_in(entry, addr))?;
            Some(view.read_u8(offset(addr)))
        })
    }
    fn write(&self, cx: &mut CallCx<'_>, mm: &Mm, addr: u64, byte: u8) -> Result<(), Refused> {
        self.use_page(cx, mm, addr, Access::Write, |entry| {
            let at = self.place_in(entry, addr);
            let mut view = self.gate.follow_mut(&entry.cached, at)?;
            match self.flaw {
                Some(Flaw::LostDirty) => view.write_deferring_dirty(offset(addr), &[byte]),
                _ => view.write(offset(addr), &[byte]),
            }
            Some(())
        })
    }
    fn declares(&self) -> Declared {
        Declared {
            ages: true,
            caches_refusals: true,
            ..Declared::default()
        }
    }
    fn unsettled(&self) -> Option<String> {
        let open = self.inner.lock().open.len();
        (open > 0).then(|| format!("{open} windows are counted"))
    }
}

impl SpinningMmu for Specimen {
    fn invalidate<'i>(&self, cx: AtomicCallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        self.begin(inv.range(), inv.event());
        self.gate.exclude(cx, inv, |(), _, _| ())
    }
    fn invalidate_end(&self, _cx: AtomicCallbackCx<'_>, range: VpnRange) {
        self.end(range);
    }
    fn age(&self, _cx: AtomicCallbackCx<'_>, range: VpnRange, kind: AgeKind) -> bool {
        let mut inner = self.inner.lock();
        let range = match self.flaw {
            Some(Flaw::WrongPage) => VpnRange::single(range.end()),
            _ => range,
        };
        let mut young = false;
        for entry in inner.entries.values_mut() {
            if entry.cached.range().overlaps(range) {
                young |= entry.accessed;
                entry.accessed &= kind == AgeKind::Test;
            }
        }
        if kind == AgeKind::ClearFlush && !self.has(Flaw::NoFlushAtAging) {
            inner.hot = None;
        }
        young && !self.has(Flaw::NeverYoung)
    }
    fn name(&self) -> &'static str {
        "the driver"
    }
    fn translations(&self, visit: &mut dyn FnMut(Translation)) -> bool {
        let inner = self.inner.lock();
        inner
            .entries
            .values()
            .for_each(|e| visit(e.cached.translation()));
        true
    }
    fn release(&self, _cx: CallbackCx<'_>) {
        let mut inner = self.inner.lock();
        if !self.has(Flaw::DeafToTheEnd) && !self.has(Flaw::SharedAsid) {
            inner.entries.clear();
        }
        inner.released = true;
    }
}
