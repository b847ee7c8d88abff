//! An onlooker that knows both sides: every page table of a machine, and every translation of its external MMUs.
//!
//! Guarantee: with an [`Oracle`] on, each of these is looked at when it happens, on the thread that does it: a frame being
//! given back (O1, O6), a window that has been acknowledged and one about to end (O4), a translation being entered in
//! a driver's store (O4), the end of an address space (O5, O11, O12). [`Oracle::audit`] compares everything at once.
//! What the other invariants say cannot be violated: windows over entry changes (O2), pairing (O3), sleeping (O7) and
//! lock order (O8) are matters of type.
//!
//! It costs what changes: for a frame, a look at the pages that led to it (`index`); for a window, a look at its pages in
//! each MMU; and all translations are compared each time that as much has happened as there are of them, so that an entry
//! which came too late into a TLB does not hide where nobody asks. A machine without an oracle pays one load.

mod finding;
mod index;
mod watch;

pub use finding::{Finding, Invariant};

use index::SpaceKey;

use crate::{
    addr::{Pfn, Vpn, VpnRange},
    ctx::{Cx, Sleepable, rank},
    mm::{Machine, Mm},
    notifier::{ExternalMmu, Translation},
    sync::{AtomicU64, Mutex, Ordering, RwLock},
};
use smallvec::SmallVec;
use std::{
    fmt,
    sync::{Arc, Weak},
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
    /// Things that happened since all translations were compared last.
    happened: AtomicU64,
    /// … after which they are compared again: as many as there were translations, so that this costs each of them one
    /// look, however many there are.
    due: AtomicU64,
}

#[derive(Clone)]
struct Watched {
    mm: Weak<Mm>,
    ext: Weak<dyn ExternalMmu>,
}

impl Oracle {
    /// An oracle for a machine. One machine has one: the first that is made looks on.
    pub fn new(machine: &Arc<Machine>) -> Arc<Self> {
        let oracle = Arc::new(Self {
            machine: Arc::downgrade(machine),
            watched: RwLock::default(),
            findings: Mutex::default(),
            index: index::Index::default(),
            happened: AtomicU64::new(0),
            due: AtomicU64::new(SELDOM),
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
        for (_, ext) in self.pairs_of(mm) {
            self.each(&*ext, &mut |t| {
                self.report(Finding::LeftAtExit {
                    mmu: ext.name(),
                    range: t.range(),
                    pfn: t.pfn(),
                });
            });
        }
        match mm.windows_open() {
            0 => {}
            open => self.report(Finding::WindowsLeft(open)),
        }
    }
    /// What has to be true when nothing is left on the machine: all frames are free, but `kept` that files hold.
    pub fn audit_empty(&self, cx: &mut Cx<'_, rank::Idle, Sleepable>, kept: u32) {
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
    fn pairs_of(&self, mm: &Arc<Mm>) -> Vec<(Arc<Mm>, Arc<dyn ExternalMmu>)> {
        let mut pairs = self.pairs();
        pairs.retain(|(other, _)| Arc::ptr_eq(mm, other));
        pairs
    }
    /// The MMUs alone; address spaces may be about to go, and must not go here.
    fn drivers_of(&self, space: SpaceKey) -> SmallVec<[Arc<dyn ExternalMmu>; 4]> {
        let watched = self.watched.read();
        let mine = watched.iter().filter(|w| key(&w.mm) == space);
        mine.filter_map(|w| w.ext.upgrade()).collect()
    }
    fn each(&self, ext: &dyn ExternalMmu, visit: &mut dyn FnMut(&Translation)) {
        if !ext.translations(&mut |t| visit(&t)) {
            self.report(Finding::Hidden(ext.name()));
        }
    }
    fn each_in(&self, ext: &dyn ExternalMmu, range: VpnRange, visit: &mut dyn FnMut(&Translation)) {
        if !ext.translations_in(range, &mut |t| visit(&t)) {
            self.report(Finding::Hidden(ext.name()));
        }
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
                .quietly(t.range(), || self.still_wrong(mm, ext, &t))
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
