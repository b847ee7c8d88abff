//! An onlooker that knows both sides: every page table of a machine, and every translation of its external MMUs.
//!
//! Guarantee: with an [`Oracle`] on, each of these is looked at when it happens, on the thread that does it: a frame being
//! given back, a window that has been acknowledged and one about to end, a translation being entered in a driver's store, a
//! reference being given up, the release of all drivers at the end of an address space. [`Oracle::audit`] compares
//! everything at once. A [`Finding`] says who, where, and which frame.
//!
//! | | what holds | how |
//! | --- | --- | --- |
//! | O1 | no translation leads to a frame that was given back | looked at when a frame goes |
//! | O2 | an entry loses something only in a window over it | type: `InvalidationWindow` (`tests/ui/i*`) |
//! | O3 | one beginning and one end of each window for each driver, of the same range | type: a window is a value, its `Drop` ends it for those who agreed; a driver's own count ([`ExternalMmu::windows`]) is looked at in audits |
//! | O4 | inside a window nobody has a translation of its range; outside, none says more than the page table | looked at when windows open and end, when entries are made, and in turn |
//! | O5 | every reference is somebody's, and goes after its last user | looked at when a driver gives references up, and at [`audit_empty`](Oracle::audit_empty) |
//! | O6 | what was written through an MMU is known before the page is taken for clean | looked at when a frame goes or is cleaned |
//! | O7 | nobody sleeps where he must not | type: `Cx` (`tests/ui/iii*`) |
//! | O8 | locks have one order | type: the ranks of `Cx`; a gate that the oracle cannot have for ten seconds is reported (O0) |
//! | O9 | windows end, and faults get their pages | looked at when a window ends, while a driver tries again, and by [`audit_liveness`](Oracle::audit_liveness) |
//! | O10 | what was used since its accessed state was cleared is said to be young | test: `tests/external/kvm.rs`, and for any driver the test kit's |
//! | O11 | nothing is translated when the pages of an address space go | looked at when all drivers were released |
//! | O12 | no window is open then, and no driver counts one | looked at then |
//!
//! It costs what changes: for a frame, a look at the pages that led to it (`index`); for a window, a look at its pages in
//! each MMU; and all translations are compared each time that as much has happened as there are of them, so that an entry
//! which came too late into a TLB does not hide where nobody asks. A machine without an oracle pays one load.

mod finding;
mod index;
mod liveness;
mod watch;

pub use finding::{Finding, Invariant};

use crate::ctx::CallCx;
use index::SpaceKey;

use crate::{
    addr::{Pfn, Vpn, VpnRange},
    mm::{Machine, Mm},
    notifier::{ExternalMmu, RegId, ShadowEntry, Translation},
    sync::{AtomicU64, Mutex, Ordering, RwLock},
};
use smallvec::SmallVec;
use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Weak},
    time::Duration,
};

/// Findings that are kept; more say nothing new.
const KEPT: usize = 100;
/// All translations are compared no more often than each time that so much has happened.
const SELDOM: u64 = 1024;

/// Watches the external MMUs that it was shown.
pub struct Oracle {
    machine: Weak<Machine>,
    watched: RwLock<Vec<Watched>>,
    findings: Mutex<Vec<Finding>>,
    index: index::Index,
    liveness: liveness::Liveness,
    /// Things that happened since all translations were compared last.
    happened: AtomicU64,
    /// … after which they are compared again: as many as there were translations, so that this costs each of them one
    /// look, however many there are.
    due: AtomicU64,
    /// Translations that drivers got to know, or entered.
    handed: AtomicU64,
}

#[derive(Clone)]
struct Watched {
    mm: Weak<Mm>,
    ext: Weak<dyn ExternalMmu>,
    /// None: not on the chain when it was shown.
    reg: Option<RegId>,
}

impl Oracle {
    /// An oracle for a machine. One machine has one: the first that is made looks on.
    pub fn new(machine: &Arc<Machine>) -> Arc<Self> {
        let oracle = Arc::new(Self {
            machine: Arc::downgrade(machine),
            watched: RwLock::default(),
            findings: Mutex::default(),
            index: index::Index::default(),
            liveness: liveness::Liveness::default(),
            happened: AtomicU64::new(0),
            due: AtomicU64::new(SELDOM),
            handed: AtomicU64::new(0),
        });
        machine
            .mem()
            .set_watch(Arc::new(watch::Frames(Arc::downgrade(&oracle))));
        oracle
    }
    /// Watches an external MMU of an address space from now on.
    pub fn watch(self: &Arc<Self>, mm: &Arc<Mm>, ext: Arc<dyn ExternalMmu>) {
        mm.set_watch(Arc::new(watch::Windows::new(self, mm)));
        let watched = Watched {
            mm: Arc::downgrade(mm),
            ext: Arc::downgrade(&ext),
            reg: mm.registration_of(&ext),
        };
        // What it has already was handed out unseen.
        let space = key(&watched.mm);
        self.each(&*ext, &mut |t| self.index.note(space, t));
        let mut all = self.watched.write();
        all.retain(|w| w.ext.strong_count() > 0);
        all.push(watched);
    }
    /// What was found so far, and forgets it.
    pub fn take(&self) -> Vec<Finding> {
        std::mem::take(&mut self.findings.lock())
    }
    /// Compares every translation of every MMU with the page table of its address space. Others may be at work
    /// meanwhile: what a window covers, or covered since this began, is passed over.
    pub fn audit(&self) {
        self.happened.store(0, Ordering::Relaxed);
        let pairs = self.pairs();
        let seen = pairs.iter().map(|(mm, ext)| self.compare(mm, &**ext));
        let seen = seen.sum::<u64>();
        self.due.store(seen.max(SELDOM), Ordering::Relaxed);
        self.audit_liveness();
    }
    /// How long a window, a look-up without success, or a driver's count of windows that are not there may last (O9, O3)
    /// until it is reported; 30 s to begin with.
    pub fn set_deadline(&self, deadline: Duration) {
        self.liveness.set_deadline(deadline);
    }
    /// Reports what has been going on for longer than the [deadline](Self::set_deadline). A window is looked at when it
    /// ends as well, and a driver that tries again while it does; what hangs for good is seen by whoever calls this, or
    /// [`audit`](Self::audit), meanwhile, on another thread.
    pub fn audit_liveness(&self) {
        self.report_all(self.liveness.look());
        let watched = self.watched.read().clone();
        for w in watched {
            let (Some(mm), Some(ext), Some(reg)) = (w.mm.upgrade(), w.ext.upgrade(), w.reg) else {
                continue;
            };
            // A driver is told of an end after the board: only what lasts is a mistake.
            let count = if mm.windows_open() == 0 {
                self.counted(&*ext)
            } else {
                0
            };
            self.report_all(self.liveness.counts(reg, ext.name(), count));
        }
    }
    fn happened(&self) {
        self.happened.fetch_add(1, Ordering::Relaxed);
    }
    /// Audits if as much has happened as that costs: finds what came too late into a TLB, for a page that no window and
    /// no frame asks about.
    fn audit_in_turn(&self) {
        self.happened();
        if self.happened.load(Ordering::Relaxed) >= self.due.load(Ordering::Relaxed) {
            self.audit();
        }
    }
    /// What has to be true when an address space has [ended](Mm::exit).
    pub fn audit_end(&self, mm: &Arc<Mm>) {
        self.look_at_end(key(&Arc::downgrade(mm)));
        self.no_window_at_end(mm);
    }
    fn look_at_end(&self, space: SpaceKey) {
        for ext in self.drivers_of(space) {
            let mmu = ext.name();
            self.each(&*ext, &mut |t| {
                self.report(Finding::LeftAtExit {
                    mmu,
                    range: t.range(),
                    pfn: t.pfn(),
                });
            });
            match self.counted(&*ext) {
                0 => {}
                count => self.report(Finding::CountsAtExit { mmu, count }),
            }
        }
    }
    fn no_window_at_end(&self, mm: &Mm) {
        match mm.windows_open() {
            0 => {}
            open => self.report(Finding::WindowsLeft(open)),
        }
    }
    fn still_translated(&self, ext: &dyn ExternalMmu, entry: &ShadowEntry) {
        let translated = self.translated(ext, &entry.translation());
        self.report_all(translated);
    }
    /// The same of what a driver gave up by itself: it may get the page anew at any moment, and then it may use it.
    fn still_used(&self, ext: &dyn ExternalMmu, gone: &Translation, handed: u64) {
        let translated = self.translated(ext, gone);
        if self.handed.load(Ordering::Relaxed) == handed {
            self.report_all(translated);
        }
    }
    /// What a driver translates to frames on which it gives up its references.
    fn translated(&self, ext: &dyn ExternalMmu, gone: &Translation) -> Vec<Finding> {
        let mut found = Vec::new();
        self.each_in(ext, gone.range(), &mut |t| {
            if gone.frames().any(|pfn| t.leads_to(pfn)) {
                found.push(Finding::UnpinnedWhileTranslated {
                    mmu: ext.name(),
                    range: t.range(),
                    pfn: t.pfn(),
                });
            }
        });
        found
    }
    /// What has to be true when nothing is left on the machine: all frames are free, but `kept` that files hold.
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
    /// Panics with what was found, if anything was.
    ///
    /// # Panics
    ///
    /// If there is a finding.
    #[track_caller]
    pub fn assert_silent(&self) {
        let found = self.take();
        let text: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert!(found.is_empty(), "{}", text.join("\n"));
    }

    fn report_all(&self, findings: impl IntoIterator<Item = Finding>) {
        findings.into_iter().for_each(|f| self.report(f));
    }
    fn report(&self, finding: Finding) {
        let mut findings = self.findings.lock();
        if findings.len() < KEPT {
            findings.push(finding);
        }
    }
    /// The MMUs that still are, with their address spaces.
    fn pairs(&self) -> Vec<(Arc<Mm>, Arc<dyn ExternalMmu>)> {
        let watched = self.watched.read();
        let both = |w: &Watched| Some((w.mm.upgrade()?, w.ext.upgrade()?));
        watched.iter().filter_map(both).collect()
    }
    fn driver_of(&self, reg: RegId) -> Option<Arc<dyn ExternalMmu>> {
        let watched = self.watched.read();
        let mine = watched.iter().find(|w| w.reg == Some(reg));
        mine.and_then(|w| w.ext.upgrade())
    }
    /// The MMUs alone; address spaces may be about to go, and must not go here.
    fn drivers_of(&self, space: SpaceKey) -> SmallVec<[Arc<dyn ExternalMmu>; 4]> {
        let watched = self.watched.read();
        let mine = watched.iter().filter(|w| key(&w.mm) == space);
        mine.filter_map(|w| w.ext.upgrade()).collect()
    }
    fn each(&self, ext: &dyn ExternalMmu, visit: &mut dyn FnMut(&Translation)) {
        let shown = self.asked(ext, || ext.translations(&mut |t| visit(&t)));
        self.hidden(ext, shown);
    }
    fn each_in(&self, ext: &dyn ExternalMmu, range: VpnRange, visit: &mut dyn FnMut(&Translation)) {
        let shown = self.asked(ext, || ext.translations_in(range, &mut |t| visit(&t)));
        self.hidden(ext, shown);
    }
    fn hidden(&self, ext: &dyn ExternalMmu, shown: Option<bool>) {
        if shown == Some(false) {
            self.report(Finding::Hidden(ext.name()));
        }
    }
    /// Windows that a driver counts.
    fn counted(&self, ext: &dyn ExternalMmu) -> u64 {
        self.asked(ext, || ext.windows()).unwrap_or(0)
    }
    /// What a driver answers, if it does. It is called at any moment, with locks of the address space held, and from
    /// destructors: a panic of its own ends there and is a finding. While this thread unwinds it is not called at
    /// all, as it may be the one that panicked, half-way through something.
    fn asked<T>(&self, ext: &dyn ExternalMmu, question: impl FnOnce() -> T) -> Option<T> {
        if std::thread::panicking() {
            return None;
        }
        let answer = catch_unwind(AssertUnwindSafe(question)).map_err(|payload| {
            self.report(Finding::Panicked {
                mmu: ext.name(),
                why: message(&*payload),
            });
        });
        answer.ok()
    }
    /// The first page that the page table leads elsewhere, if the MMU still has the translation.
    fn still_wrong(&self, mm: &Mm, ext: &dyn ExternalMmu, t: &Translation) -> Option<Vpn> {
        let at = disagreement(mm, t)?;
        let mut has = false;
        self.each_in(ext, t.range(), &mut |other| has |= other == t);
        has.then_some(at)
    }
    /// How many translations it has.
    fn compare(&self, mm: &Mm, ext: &dyn ExternalMmu) -> u64 {
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
            // Entry and translation were read at different times: what counts is that they disagree while no window is open.
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
                });
            }
        }
        seen
    }
}

/// Whether the page table, which has `primary` there, leads `at` where the translation does, with no fewer rights.
fn agrees(primary: Option<(Pfn, bool)>, t: &Translation, at: Vpn) -> bool {
    primary.is_some_and(|(pfn, may_write)| {
        t.frame_of(at) == Some(pfn) && (may_write || !t.is_writable())
    })
}

/// The first page that the page table leads elsewhere.
fn disagreement(mm: &Mm, t: &Translation) -> Option<Vpn> {
    mm.with_translations(|primary| t.range().iter().find(|at| !agrees(primary(*at), t, *at)))
}

/// What a panic said.
pub(crate) fn message(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_default()
}

fn key(mm: &Weak<Mm>) -> SpaceKey {
    mm.as_ptr().addr()
}

impl fmt::Debug for Oracle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Oracle")
            .field("watched", &self.watched.read().len())
            .field("findings", &self.findings.lock().len())
            .finish_non_exhaustive()
    }
}
