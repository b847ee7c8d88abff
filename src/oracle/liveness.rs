//! O9: every window ends, and every fault gets its page, within a deadline.

use super::{Finding, index::SpaceKey};
use crate::{
    addr::{Vpn, VpnRange},
    notifier::RegId,
    sync::{AtomicU64, Mutex, Ordering},
};
use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

/// The initial deadline: longer than any that a driver sets for other processes.
const DEADLINE: Duration = Duration::from_secs(30);

/// A window that is open, or about to open.
#[derive(Debug)]
struct Open {
    range: VpnRange,
    since: Instant,
    /// The driver that has been called and has not acknowledged, and since when.
    called: Option<(&'static str, Instant)>,
    /// The driver that took longest so far, and its time.
    slowest: Option<(&'static str, Duration)>,
    /// The window has been reported.
    reported: bool,
}

/// The failed tries of one driver to get one page.
#[derive(Debug)]
struct Tries {
    mmu: &'static str,
    since: Instant,
    count: u64,
}

/// Windows that are open, faults that wait for their page, and drivers whose counts are wrong.
#[derive(Debug)]
pub(super) struct Liveness {
    /// The deadline in nanoseconds.
    deadline: AtomicU64,
    windows: Mutex<BTreeMap<(SpaceKey, u64), Open>>,
    tries: Mutex<HashMap<(RegId, Vpn), Tries>>,
    /// Drivers that count windows while none is open, and since when.
    counting: Mutex<HashMap<RegId, Instant>>,
}

impl Default for Liveness {
    fn default() -> Self {
        let liveness = Self {
            deadline: AtomicU64::new(0),
            windows: Mutex::default(),
            tries: Mutex::default(),
            counting: Mutex::default(),
        };
        liveness.set_deadline(DEADLINE);
        liveness
    }
}

impl Liveness {
    /// Sets the deadline of everything that is watched here.
    pub(super) fn set_deadline(&self, deadline: Duration) {
        let ns = u64::try_from(deadline.as_nanos()).unwrap_or(u64::MAX);
        self.deadline.store(ns, Ordering::Relaxed);
    }
    fn deadline(&self) -> Duration {
        Duration::from_nanos(self.deadline.load(Ordering::Relaxed))
    }
    /// A driver is called to acknowledge a window; the first call opens it here.
    pub(super) fn calling(&self, window: (SpaceKey, u64), range: VpnRange, mmu: &'static str) {
        let now = Instant::now();
        let mut windows = self.windows.lock();
        let open = windows.entry(window).or_insert(Open {
            range,
            since: now,
            called: None,
            slowest: None,
            reported: false,
        });
        open.answered(now);
        open.called = Some((mmu, now));
    }
    /// All drivers have acknowledged the window.
    pub(super) fn opened(&self, window: (SpaceKey, u64)) {
        if let Some(open) = self.windows.lock().get_mut(&window) {
            open.answered(Instant::now());
        }
    }
    /// The window has ended, or was refused. Returns a finding if that took too long.
    pub(super) fn closed(&self, window: (SpaceKey, u64)) -> Option<Finding> {
        let mut open = self.windows.lock().remove(&window)?;
        open.late(self.deadline())
    }
    /// A driver tries to get a page. Returns a finding if it has tried for too long.
    pub(super) fn tried(&self, reg: RegId, mmu: &'static str, at: Vpn) -> Option<Finding> {
        let mut tries = self.tries.lock();
        let mine = tries.entry((reg, at)).or_insert_with(|| Tries {
            mmu,
            since: Instant::now(),
            count: 0,
        });
        mine.count += 1;
        // Reading the clock costs more than all the rest.
        if mine.count.is_multiple_of(64) {
            return mine.late(at, self.deadline());
        }
        None
    }
    /// The driver has got the page.
    pub(super) fn got(&self, reg: RegId, at: Vpn) {
        self.tries.lock().remove(&(reg, at));
    }
    /// Records how many windows a driver counts while none is open. Returns a finding if that
    /// lasts.
    pub(super) fn counts(&self, reg: RegId, mmu: &'static str, count: u64) -> Option<Finding> {
        let mut counting = self.counting.lock();
        if count == 0 {
            counting.remove(&reg);
            return None;
        }
        let since = counting.entry(reg).or_insert_with(Instant::now);
        let after = since.elapsed();
        (after >= self.deadline()).then_some(Finding::CountsWindows { mmu, count, after })
    }
    /// Returns a finding for everything that has lasted too long.
    pub(super) fn look(&self) -> Vec<Finding> {
        let deadline = self.deadline();
        let mut windows = self.windows.lock();
        let late = windows.values_mut().filter_map(|open| open.late(deadline));
        let mut found: Vec<Finding> = late.collect();
        let mut tries = self.tries.lock();
        let late = tries
            .iter_mut()
            .filter_map(|((_, at), t)| t.late(*at, deadline));
        found.extend(late);
        found
    }
}

impl Open {
    /// The driver that was called last has acknowledged.
    fn answered(&mut self, now: Instant) {
        if let Some((mmu, since)) = self.called.take() {
            let took = now - since;
            if self.slowest.is_none_or(|(_, most)| took > most) {
                self.slowest = Some((mmu, took));
            }
        }
    }
    /// Returns a finding, once for each window, if it is late.
    fn late(&mut self, deadline: Duration) -> Option<Finding> {
        let after = self.since.elapsed();
        if after < deadline || std::mem::replace(&mut self.reported, true) {
            return None;
        }
        let waiting = self.called.map(|(mmu, since)| (mmu, since.elapsed()));
        Some(Finding::LongWindow {
            window: self.range,
            after,
            waiting: waiting.map(|(mmu, _)| mmu),
            slowest: waiting.or(self.slowest),
        })
    }
}

impl Tries {
    /// Returns a finding, once for each deadline, if the look-up is late. One try that takes long
    /// is not a look-up without success: that takes two.
    fn late(&mut self, at: Vpn, deadline: Duration) -> Option<Finding> {
        let after = self.since.elapsed();
        if after < deadline || self.count < 2 {
            return None;
        }
        let count = std::mem::take(&mut self.count);
        self.since = Instant::now();
        let mmu = self.mmu;
        Some(Finding::NoProgress {
            mmu,
            at,
            count,
            after,
        })
    }
}
