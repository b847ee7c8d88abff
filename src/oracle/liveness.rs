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
#[derive(Clone, Copy, Debug)]
struct Tries {
    mmu: &'static str,
    since: Instant,
    last: Instant,
    count: u64,
}

/// A driver that does not try again for so long has given up, if the deadline is not longer.
const GIVEN_UP: Duration = Duration::from_secs(1);

/// Windows that are open, faults that wait for their page, and drivers whose counts are wrong.
#[derive(Debug)]
pub(super) struct Liveness {
    /// The deadline in nanoseconds.
    deadline: AtomicU64,
    windows: Mutex<BTreeMap<(SpaceKey, u64), Open>>,
    /// The number of windows that began so far; it tells two with the same key apart.
    begun: AtomicU64,
    tries: Mutex<HashMap<(RegId, Vpn), Tries>>,
    /// Drivers that count windows while none is open, and since when.
    counting: Mutex<HashMap<RegId, Instant>>,
}

impl Default for Liveness {
    fn default() -> Self {
        let liveness = Self {
            deadline: AtomicU64::new(0),
            windows: Mutex::default(),
            begun: AtomicU64::new(0),
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
        let open = windows.entry(window).or_insert_with(|| {
            self.begun.fetch_add(1, Ordering::SeqCst);
            Open {
                range,
                since: now,
                called: None,
                slowest: None,
                reported: false,
            }
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
    /// Returns the number of windows that have begun, unless one of the address space has begun and
    /// not ended for all of its drivers. If two calls return the same, no driver heard of a window
    /// in between.
    pub(super) fn begun_if_quiet(&self, space: SpaceKey) -> Option<u64> {
        let windows = self.windows.lock();
        let mut of_space = windows.range((space, 0)..=(space, u64::MAX));
        let begun = self.begun.load(Ordering::SeqCst);
        of_space.next().is_none().then_some(begun)
    }
    /// A driver tries to get a page. Returns a finding if it has tried for too long.
    pub(super) fn tried(&self, reg: RegId, mmu: &'static str, at: Vpn) -> Option<Finding> {
        let (now, deadline) = (Instant::now(), self.deadline());
        let first = Tries {
            mmu,
            since: now,
            last: now,
            count: 0,
        };
        let mut tries = self.tries.lock();
        let mine = tries.entry((reg, at)).or_insert(first);
        if now - mine.last >= deadline.max(GIVEN_UP) {
            *mine = first;
        }
        (mine.last, mine.count) = (now, mine.count + 1);
        mine.late(at, deadline)
    }
    /// The driver has got the page, or was refused.
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
    /// Returns a finding, once for each deadline, if the tries go on for too long. The time is that
    /// from the first try to the last: the driver may have given up after that.
    fn late(&mut self, at: Vpn, deadline: Duration) -> Option<Finding> {
        let after = self.last - self.since;
        if after < deadline || self.count < 2 {
            return None;
        }
        let count = std::mem::take(&mut self.count);
        self.since = self.last;
        let mmu = self.mmu;
        Some(Finding::NoProgress {
            mmu,
            at,
            count,
            after,
        })
    }
}
