//! Audits: comparing all translations with the page tables, and checking the end of an address
//! space.
//!
//! An audit runs while other threads work. It reads a page-table entry and a translation at
//! different times, so a difference is only a suspect: it is a finding if it is still there at a
//! moment at which no window covers it.

use super::{
    Finding,
    index::SpaceKey,
    state::{MIN_AUDIT_INTERVAL, Oracle, key, space_of},
    watchee::Watchee,
};
use crate::{
    addr::{Pfn, Vpn},
    ctx::CallCx,
    mm::Mm,
    notifier::Translation,
    sync::Ordering,
};
use std::{sync::Arc, time::Duration};

impl Oracle {
    /// Compares every translation of every MMU with the page table of its address space. Other
    /// threads may be at work: pages that a window covers, or has covered since the audit began,
    /// are passed over.
    pub fn audit(&self) {
        self.happened.store(0, Ordering::Relaxed);
        let pairs = self.pairs();
        let seen = pairs.iter().map(|(mm, ext)| self.compare(mm, ext));
        let seen = seen.sum::<u64>();
        self.due
            .store(seen.max(MIN_AUDIT_INTERVAL), Ordering::Relaxed);
        self.audit_liveness();
    }
    /// Sets how long a window, a look-up without success, or a driver's count of windows that do
    /// not exist may last (O9, O3) before it is reported; 30 s initially.
    pub fn set_deadline(&self, deadline: Duration) {
        self.liveness.set_deadline(deadline);
    }
    /// Reports everything that has lasted longer than the [deadline](Self::set_deadline). A window
    /// is also checked when it ends, and a look-up when the driver tries again; one that hangs for
    /// good is found by a thread that calls this, or [`audit`](Self::audit), meanwhile.
    pub fn audit_liveness(&self) {
        self.report_all(self.liveness.look());
        let watched = self.watched.read().clone();
        for w in watched {
            let (Some(mm), Some(ext), Some(reg)) = (w.mm.upgrade(), w.ext.upgrade(), w.reg) else {
                continue;
            };
            // A driver learns of the end of a window after the board, and a window may begin while
            // this looks: what it counts then is no mistake. Windows from before the oracle came
            // are not known here, so only a count that lasts is one.
            let before = self.liveness.begun_if_quiet(key(&w.mm));
            let count = self.counted(&ext);
            let is_quiet = before.is_some()
                && mm.windows_open() == 0
                && before == self.liveness.begun_if_quiet(key(&w.mm));
            if count == 0 || is_quiet {
                self.report_all(self.liveness.counts(reg, ext.name(), count));
            }
        }
    }
    /// Runs an audit if as much has happened since the last one as it costs. Finds a translation
    /// that came too late into a TLB, for a page that no window and no frame asks about.
    pub(super) fn audit_in_turn(&self) {
        self.happened();
        if self.happened.load(Ordering::Relaxed) >= self.due.load(Ordering::Relaxed) {
            self.audit();
        }
    }
    /// Checks an address space that has [ended](Mm::exit): no translation and no window is left.
    pub fn audit_end(&self, mm: &Arc<Mm>) {
        self.look_at_end(key(&Arc::downgrade(mm)), |_| true);
        self.no_window_at_end(mm);
    }
    /// Checks that nothing is left on the machine: all frames are free, except `kept` that files
    /// hold.
    pub fn audit_empty(&self, cx: &mut CallCx<'_>, kept: u32) {
        let _unused = cx;
        let Some(machine) = self.machine.upgrade() else {
            return;
        };
        let in_use = machine.mem().in_use();
        if in_use != kept {
            self.report(Finding::Leaked {
                what: "frames",
                count: u64::from(in_use.abs_diff(kept)),
            });
        }
    }
    /// Reports translations that are left in an address space, and windows that its drivers count.
    /// Looks at some of its MMUs.
    pub(super) fn look_at_end(&self, space: SpaceKey, at: fn(&Watchee) -> bool) {
        for ext in self.drivers_of(space).into_iter().filter(at) {
            let mmu = ext.name();
            self.each(&ext, &mut |t| {
                self.report(Finding::LeftAtExit {
                    mmu,
                    range: t.range(),
                    pfn: t.pfn(),
                });
            });
            match self.counted(&ext) {
                0 => {}
                count => self.report(Finding::CountsAtExit { mmu, count }),
            }
        }
    }
    /// Reports windows that are left open.
    fn no_window_at_end(&self, mm: &Mm) {
        match mm.windows_open() {
            0 => {}
            open => self.report(Finding::WindowsLeft(open)),
        }
    }
    /// Reports translations to frames on which the last reference of the driver is given up.
    pub(super) fn still_translated(&self, ext: &Watchee, gone: &Translation) {
        self.report_all(self.translated(ext, gone));
    }
    /// Reports translations to frames that a driver gives up by itself, unless a translation was
    /// handed out meanwhile: the driver may have got the page again, and may use it.
    pub(super) fn still_used(&self, ext: &Watchee, gone: &Translation, handed: u64) {
        let translated = self.translated(ext, gone);
        if self.handed.load(Ordering::Relaxed) == handed {
            self.report_all(translated);
        }
    }
    /// Returns a finding for each translation that leads to a frame of `gone`.
    fn translated(&self, ext: &Watchee, gone: &Translation) -> Vec<Finding> {
        let mut found = Vec::new();
        self.each_in(ext, gone.range(), &mut |t| {
            if gone.frames().any(|pfn| t.leads_to(pfn)) {
                found.push(Finding::GivenUpWhileTranslated {
                    mmu: ext.name(),
                    range: t.range(),
                    pfn: t.pfn(),
                });
            }
        });
        found
    }
    /// Returns the first page that the page table maps differently, if the MMU still has the
    /// translation.
    fn still_wrong(&self, mm: &Mm, ext: &Watchee, t: &Translation) -> Option<Vpn> {
        let at = disagreement(mm, t)?;
        let mut has = false;
        self.each_in(ext, t.range(), &mut |other| has |= other == t);
        has.then_some(at)
    }
    /// Compares the translations of one MMU with the page table, and returns their number.
    fn compare(&self, mm: &Mm, ext: &Watchee) -> u64 {
        let mut suspects = Vec::new();
        let mut seen = 0;
        mm.with_translations(|primary| {
            self.each(ext, &mut |t| {
                seen += 1;
                let wrong = t.range().iter().any(|at| !agrees(primary(at), t, at));
                suspects.extend(wrong.then_some(*t));
            });
        });
        for t in suspects {
            // Read at different times: a difference counts if it is there while no window is open.
            let still = mm
                .if_no_window(t.range(), || self.still_wrong(mm, ext, &t))
                .flatten();
            if let Some(at) = still {
                self.report(Finding::Incoherent {
                    mmu: ext.name(),
                    range: t.range(),
                    pfn: t.pfn(),
                    writable: t.is_writable(),
                    primary: mm.translation_of(at),
                    window: self.opened.last(space_of(mm), at, 0),
                });
            }
        }
        seen
    }
}

/// Returns true if the page-table entry `primary` maps `at` to the frame of the translation, with
/// no fewer rights.
fn agrees(primary: Option<(Pfn, bool)>, t: &Translation, at: Vpn) -> bool {
    primary.is_some_and(|(pfn, may_write)| {
        t.frame_of(at) == Some(pfn) && (may_write || !t.is_writable())
    })
}

/// Returns the first page that the page table maps differently from the translation.
pub(super) fn disagreement(mm: &Mm, t: &Translation) -> Option<Vpn> {
    mm.with_translations(|primary| t.range().iter().find(|at| !agrees(primary(*at), t, *at)))
}
