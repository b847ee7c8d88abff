//! The events at which an oracle looks: frames that are given back, and windows that open and end.

use super::{
    Finding,
    audit::disagreement,
    index::SpaceKey,
    state::{Oracle, Post, key},
    watchee::Watchee,
};
use crate::{
    addr::{Pfn, Vpn, VpnRange},
    frame::{DeviceId, FrameWatch},
    mm::{Machine, Mm},
    notifier::{Access, RegId, Translation, WindowObserver},
    sync::Ordering,
};
use std::{
    any::Any,
    sync::{Arc, Weak},
};

/// Observes the frames of a machine.
#[derive(Default)]
pub(super) struct FrameWatcher(Arc<Post>);

impl FrameWatcher {
    /// Returns the post of a machine's oracle, to which the observer of its frames reports.
    pub(super) fn post_of(machine: &Machine) -> Arc<Post> {
        let watch: &dyn Any = machine.mem().watch(|| Arc::new(Self::default()));
        let watch: &Self = watch.downcast_ref().expect("only oracles observe frames");
        Arc::clone(&watch.0)
    }
}

impl FrameWatch for FrameWatcher {
    fn retiring(&self, pfn: Pfn, owes_dirty: bool) {
        let Some(oracle) = self.0.oracle() else {
            return;
        };
        let pages = oracle.index.take(pfn);
        let range = pages.first().map(|(_, range)| *range);
        for (space, at) in pages {
            oracle.happened();
            for ext in oracle.drivers_of(space) {
                oracle.each_in(&ext, at, &mut |t| {
                    if t.leads_to(pfn) {
                        oracle.report(Finding::FreedWhileTranslated {
                            mmu: ext.name(),
                            range: t.range(),
                            pfn,
                            window: oracle.opened.last(space, at.start(), 0),
                        });
                    }
                });
            }
        }
        if owes_dirty {
            oracle.report(Finding::LostWrite { pfn, range });
        }
    }
    fn write_lost(&self, pfn: Pfn) {
        if let Some(oracle) = self.0.oracle() {
            let range = oracle.index.first(pfn);
            oracle.report(Finding::LostWrite { pfn, range });
        }
    }
}

/// Observes the windows of one address space.
pub(super) struct WindowWatcher {
    post: Arc<Post>,
    mm: Weak<Mm>,
}

impl WindowWatcher {
    pub(super) fn new(post: &Arc<Post>, mm: &Arc<Mm>) -> Self {
        Self {
            post: Arc::clone(post),
            mm: Arc::downgrade(mm),
        }
    }
    /// Reports all translations that lie in a window, but for those that may stay.
    fn look(
        &self,
        window: VpnRange,
        when: &'static str,
        stays: impl Fn(&Mm, &Translation) -> bool,
    ) {
        let (Some(oracle), mm) = (self.post.oracle(), self.mm.upgrade()) else {
            return;
        };
        let all = oracle.drivers_of(self.space()).into_iter();
        for ext in all.filter(Watchee::gets_windows) {
            oracle.each_in(&ext, window, &mut |t| {
                if mm.as_ref().is_some_and(|mm| stays(mm, t)) {
                    return;
                }
                oracle.report(Finding::InsideWindow {
                    mmu: ext.name(),
                    range: t.range(),
                    pfn: t.pfn(),
                    window,
                    when,
                });
            });
        }
    }
    /// Calls `f` with the oracle, if it still exists.
    fn with(&self, f: impl FnOnce(&Oracle)) {
        if let Some(oracle) = self.post.oracle() {
            f(&oracle);
        }
    }
    fn space(&self) -> SpaceKey {
        key(&self.mm)
    }
    /// Returns true if the translation is of a page that lies on a device now as before.
    fn is_still_there(&self, t: &Translation) -> bool {
        self.mm.upgrade().is_some_and(|mm| has_on_device(&mm, t))
    }
}

/// Returns true if the page table has the device's frame there to which the translation leads.
fn has_on_device(mm: &Mm, t: &Translation) -> bool {
    mm.machine().mem().is_device(t.pfn()) && disagreement(mm, t).is_none()
}

impl WindowObserver for WindowWatcher {
    fn calling(&self, window: u64, range: VpnRange, mmu: &'static str) {
        self.with(|o| o.liveness.calling((self.space(), window), range, mmu));
    }
    fn opened(&self, window: u64, range: VpnRange, spared: Option<DeviceId>) {
        self.with(|o| {
            o.liveness.opened((self.space(), window));
            o.opened.note(self.space(), range);
        });
        self.look(range, "at the beginning", |mm, t| {
            spared.is_some() && mm.machine().mem().device_of(t.pfn()) == spared
        });
    }
    fn closed(&self, window: u64) {
        self.with(|o| o.report_all(o.liveness.closed((self.space(), window))));
    }
    fn tried(&self, reg: RegId, mmu: &'static str, at: Vpn) {
        self.with(|o| o.report_all(o.liveness.tried(reg, mmu, at)));
    }
    fn got(&self, reg: RegId, at: Vpn) {
        self.with(|o| o.liveness.got(reg, at));
    }
    fn giving_up(&self, reg: RegId, gone: &[Translation]) {
        self.with(|oracle| {
            if let Some(ext) = oracle.driver_of(reg) {
                gone.iter().for_each(|t| oracle.still_translated(&ext, t));
            }
        });
    }
    fn handed(&self) -> u64 {
        let oracle = self.post.oracle();
        oracle.map_or(0, |oracle| oracle.handed.load(Ordering::Relaxed))
    }
    fn given_up(&self, reg: RegId, gone: &[Translation], handed: u64) {
        self.with(|oracle| {
            if let Some(ext) = oracle.driver_of(reg) {
                gone.iter().for_each(|t| oracle.still_used(&ext, t, handed));
            }
        });
    }
    fn released(&self) {
        self.with(|oracle| {
            // Devices that walk the page table are released after this.
            oracle.look_at_end(self.space(), Watchee::gets_windows);
            oracle.opened.forget(self.space());
        });
    }
    fn closing(&self, range: VpnRange) {
        // The promise is kept: the page table still has the device's frame there.
        self.look(range, "at the end", has_on_device);
        if let Some(oracle) = self.post.oracle() {
            oracle.audit_in_turn();
        }
    }
    fn handed_out(&self, t: &Translation) {
        if let Some(oracle) = self.post.oracle() {
            oracle.happened();
            oracle.handed.fetch_add(1, Ordering::Relaxed);
            oracle.index.note(self.space(), t);
        }
    }
    fn windows_opened(&self) -> u64 {
        let oracle = self.post.oracle();
        oracle.map_or(0, |oracle| oracle.opened.count())
    }
    fn follows(&self, mmu: &'static str, to: (Vpn, Access), since: u64, copy: &Translation) {
        let (at, access) = to;
        self.with(|oracle| {
            let window = oracle.opened.last(self.space(), at, since);
            // A window may have spared it.
            if let Some(window) = window.filter(|_| !self.is_still_there(copy)) {
                oracle.report(Finding::StaleUse {
                    mmu,
                    at,
                    access,
                    window,
                });
            }
        });
    }
    fn established(&self, t: &Translation) {
        let (Some(oracle), Some(mm)) = (self.post.oracle(), self.mm.upgrade()) else {
            return;
        };
        oracle.handed.fetch_add(1, Ordering::Relaxed);
        if let Some(at) = disagreement(&mm, t) {
            oracle.report(Finding::Incoherent {
                mmu: "a permit",
                range: t.range(),
                pfn: t.pfn(),
                writable: t.is_writable(),
                primary: mm.translation_of(at),
                window: oracle.opened.last(self.space(), at, 0),
            });
        }
    }
}
