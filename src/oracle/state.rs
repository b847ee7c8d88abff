//! The state of an oracle: the MMUs that it watches, its findings, and its questions to drivers.

use super::{
    Finding,
    index::{Index, SpaceKey},
    liveness::Liveness,
    opened::OpenedWindows,
    watchee::{Watchee, WeakWatchee},
};
use crate::{
    addr::VpnRange,
    mm::{Machine, Mm},
    notifier::{RegId, Translation},
    sync::{AtomicU64, Mutex, Ordering, RwLock},
};
use smallvec::SmallVec;
use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Weak},
};

/// The most findings that are kept: more tell nothing new.
const MAX_FINDINGS: usize = 100;
/// The least number of events between two audits in turn.
pub(super) const MIN_AUDIT_INTERVAL: u64 = 1024;

/// Watches the external MMUs that it was shown.
///
/// # Examples
///
/// ```
/// use emmu::{
///     PAGE_SIZE,
///     extmmu::gru::{Gru, GruConfig, GruContext, GruMistake, GruSpace},
///     mm::{Advice, MmapArgs},
///     oracle::{Invariant, Oracle},
/// };
/// # let machine = emmu::Machine::new(Default::default());
/// # let mut thread = machine.enter()?;
/// # let mut cx = thread.cx();
/// # let mm = emmu::Mm::new(&machine);
///
/// let oracle = Oracle::new(&machine);
/// let grus = Gru::several(1, GruConfig::default());
/// let mistake = Some(GruMistake::NoPurge); // this driver ignores its windows
/// let (space, _registration) = GruSpace::attach(&mut cx, &mm, &grus, mistake);
/// oracle.watch(&mm, space.clone());
///
/// let at = mm.mmap(&mut cx, &MmapArgs::anonymous(PAGE_SIZE))?;
/// GruContext::new(&space, 0)?.write(&mut cx, at, b"by the GRU")?;
/// mm.madvise(&mut cx, at, PAGE_SIZE, Advice::DontNeed)?;
/// let findings = oracle.take();
/// assert_eq!(findings[0].invariant(), Invariant::Coherent);
/// println!("{}", findings[0]);
/// # mm.exit(&mut cx);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Oracle {
    pub(super) machine: Weak<Machine>,
    pub(super) watched: RwLock<Vec<Watched>>,
    pub(super) findings: Mutex<Vec<Finding>>,
    pub(super) index: Index,
    pub(super) liveness: Liveness,
    pub(super) opened: OpenedWindows,
    /// Events since all translations were last compared.
    pub(super) happened: AtomicU64,
    /// The number of events after which all translations are compared again: as many as there were
    /// translations, so that an event costs one comparison, however many translations there are.
    pub(super) due: AtomicU64,
    /// The number of translations that drivers were handed out, or have entered.
    pub(super) handed: AtomicU64,
    pub(super) post: Arc<Post>,
}

/// The place where the watchers of a machine find its oracle: they stay for good, and oracles come
/// and go.
#[derive(Debug, Default)]
pub(super) struct Post(Mutex<Weak<Oracle>>);

impl Post {
    /// Returns the oracle, if one is here.
    pub(super) fn oracle(&self) -> Option<Arc<Oracle>> {
        self.0.lock().upgrade()
    }
    /// Puts an oracle here, unless another one is.
    pub(super) fn take(&self, oracle: &Arc<Oracle>) {
        let mut here = self.0.lock();
        if here.strong_count() == 0 {
            *here = Arc::downgrade(oracle);
        }
    }
}

/// An external MMU that is watched.
#[derive(Clone)]
pub(super) struct Watched {
    pub(super) mm: Weak<Mm>,
    pub(super) ext: WeakWatchee,
    /// The registration; `None`: the MMU was not on the chain when it was shown.
    pub(super) reg: Option<RegId>,
}

impl Oracle {
    /// Returns the findings so far, and forgets them.
    pub fn take(&self) -> Vec<Finding> {
        std::mem::take(&mut self.findings.lock())
    }
    /// Panics with all findings, unless there is none.
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
    /// Counts an event.
    pub(super) fn happened(&self) {
        self.happened.fetch_add(1, Ordering::Relaxed);
    }
    /// Keeps findings, up to the limit.
    pub(super) fn report_all(&self, findings: impl IntoIterator<Item = Finding>) {
        findings.into_iter().for_each(|f| self.report(f));
    }
    /// Keeps a finding, up to the limit.
    pub(super) fn report(&self, finding: Finding) {
        let mut findings = self.findings.lock();
        if findings.len() < MAX_FINDINGS {
            findings.push(finding);
        }
    }
    /// Returns the MMUs that still exist, with their address spaces.
    pub(super) fn pairs(&self) -> Vec<(Arc<Mm>, Watchee)> {
        let watched = self.watched.read();
        let both = |w: &Watched| Some((w.mm.upgrade()?, w.ext.upgrade()?));
        watched.iter().filter_map(both).collect()
    }
    /// Returns the driver of a registration, if it is watched.
    pub(super) fn driver_of(&self, reg: RegId) -> Option<Watchee> {
        let watched = self.watched.read();
        let mine = watched.iter().find(|w| w.reg == Some(reg));
        mine.and_then(|w| w.ext.upgrade())
    }
    /// Returns the MMUs of an address space. Takes no reference on the address space: it may be
    /// about to be dropped, and must not be dropped here.
    pub(super) fn drivers_of(&self, space: SpaceKey) -> SmallVec<[Watchee; 4]> {
        let watched = self.watched.read();
        let mine = watched.iter().filter(|w| key(&w.mm) == space);
        mine.filter_map(|w| w.ext.upgrade()).collect()
    }
    /// Visits all translations of an MMU.
    pub(super) fn each(&self, ext: &Watchee, visit: &mut dyn FnMut(&Translation)) {
        let shown = self.guarded_call(ext, || ext.translations(&mut |t| visit(&t)));
        self.hidden(ext, shown);
    }
    /// Visits the translations of an MMU that touch a range.
    pub(super) fn each_in(
        &self,
        ext: &Watchee,
        range: VpnRange,
        visit: &mut dyn FnMut(&Translation),
    ) {
        let shown = self.guarded_call(ext, || ext.translations_in(range, &mut |t| visit(&t)));
        self.hidden(ext, shown);
    }
    /// Reports a driver that did not show its translations.
    fn hidden(&self, ext: &Watchee, shown: Option<bool>) {
        if shown == Some(false) {
            self.report(Finding::Hidden(ext.name()));
        }
    }
    /// Returns the number of windows that a driver counts as open.
    pub(super) fn counted(&self, ext: &Watchee) -> u64 {
        self.guarded_call(ext, || ext.windows()).unwrap_or(0)
    }
    /// Calls a driver, and returns its answer if there is one.
    ///
    /// A driver is called at any moment, with locks of the address space held, and from
    /// destructors. So its panic ends here and is a finding. While this thread unwinds, no driver
    /// is called at all: it may be the one that panicked, in the middle of a change.
    fn guarded_call<T>(&self, ext: &Watchee, question: impl FnOnce() -> T) -> Option<T> {
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
}

/// Returns the message of a panic.
pub(crate) fn message(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_default()
}

/// Returns the identity of an address space, which may be gone.
pub(super) fn key(mm: &Weak<Mm>) -> SpaceKey {
    mm.as_ptr().addr()
}

/// Returns the identity of an address space.
pub(super) fn space_of(mm: &Mm) -> SpaceKey {
    std::ptr::from_ref(mm).addr()
}

impl fmt::Debug for Oracle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Oracle")
            .field("watched", &self.watched.read().len())
            .field("findings", &self.findings.lock().len())
            .finish_non_exhaustive()
    }
}
