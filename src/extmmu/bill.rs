//! What an address space's life cost an external MMU.

use crate::{
    addr::{Vpn, VpnRange},
    sync::Mutex,
};
use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

/// The counts. Times are of this run, everything else is the same in each run of one thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bill {
    /// Windows that it was told of.
    pub windows: u64,
    /// Pages whose translations it dropped for them.
    pub dropped: u64,
    /// Translations that it made.
    pub faults: u64,
    /// … of pages that it had dropped before.
    pub refaults: u64,
    /// Times that it had to look again, since a window was open or had closed meanwhile.
    pub retries: u64,
    /// Demands that others had to acknowledge, and did: flushes of processors, purges, answers of partitions.
    pub acknowledgements: u64,
    /// Times that what a demand goes through was busy with another one: purge handles.
    pub waits: u64,
    /// Aging calls.
    pub agings: u64,
    /// From the beginning of windows to their ends, added up.
    pub in_windows: Duration,
    /// The longest that one window held it off.
    pub longest: Duration,
}

impl std::ops::AddAssign for Bill {
    fn add_assign(&mut self, other: Self) {
        self.windows += other.windows;
        self.dropped += other.dropped;
        self.faults += other.faults;
        self.refaults += other.refaults;
        self.retries += other.retries;
        self.acknowledgements += other.acknowledgements;
        self.waits += other.waits;
        self.agings += other.agings;
        self.in_windows += other.in_windows;
        self.longest = self.longest.max(other.longest);
    }
}

/// One window as one MMU saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The pages.
    pub range: VpnRange,
    /// When it was told of the beginning.
    pub begin: Instant,
    /// When it was told of the end.
    pub end: Instant,
}

/// Keeps a [`Bill`], and the windows one by one if somebody wants them.
#[derive(Debug, Default)]
pub struct Meter(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    bill: Bill,
    open: Vec<(VpnRange, Instant)>,
    dropped: HashSet<Vpn>,
    spans: Option<Vec<Span>>,
}

impl Meter {
    /// The counts so far.
    pub fn bill(&self) -> Bill {
        self.0.lock().bill
    }
    /// The windows that have ended since the last call, in the order of their ends; none before the first call, with which
    /// keeping them begins.
    pub fn take_spans(&self) -> Vec<Span> {
        self.0.lock().spans.replace(Vec::new()).unwrap_or_default()
    }
    /// A window begins. The demand of a leave-taking, over everything, is none.
    pub fn begin(&self, range: VpnRange) {
        if range == VpnRange::ALL {
            return;
        }
        let mut counts = self.0.lock();
        counts.bill.windows += 1;
        counts.open.push((range, Instant::now()));
    }
    /// The translations of these pages went for a window.
    pub fn dropped(&self, pages: VpnRange) {
        let mut counts = self.0.lock();
        counts.bill.dropped += pages.pages();
        counts.dropped.extend(pages.iter());
    }
    /// A window ends.
    pub fn end(&self, range: VpnRange) {
        let mut counts = self.0.lock();
        let Some(at) = counts.open.iter().position(|(open, _)| *open == range) else {
            return;
        };
        let (_, since) = counts.open.swap_remove(at);
        let end = Instant::now();
        let held = end - since;
        counts.spans.iter_mut().for_each(|spans| {
            spans.push(Span {
                range,
                begin: since,
                end,
            });
        });
        counts.bill.in_windows += held;
        counts.bill.longest = counts.bill.longest.max(held);
    }
    /// These pages are translated from now on.
    pub fn faulted(&self, pages: VpnRange) {
        let mut counts = self.0.lock();
        counts.bill.faults += 1;
        let mut again = false;
        if !counts.dropped.is_empty() {
            for at in pages.iter() {
                again |= counts.dropped.remove(&at);
            }
        }
        counts.bill.refaults += u64::from(again);
    }
    /// It had to look again.
    pub fn retried(&self) {
        self.0.lock().bill.retries += 1;
    }
    /// Others acknowledged.
    pub fn acknowledged(&self, times: u64) {
        self.0.lock().bill.acknowledgements += times;
    }
    /// A demand had to wait for another one.
    pub fn waited(&self) {
        self.0.lock().bill.waits += 1;
    }
    /// It was asked for accessed bits.
    pub fn aged(&self) {
        self.0.lock().bill.agings += 1;
    }
    /// Windows that it was told the beginning of, not yet the end.
    pub fn open(&self) -> usize {
        self.0.lock().open.len()
    }
}

#[cfg(test)]
mod tests {
    use super::Meter;
    use crate::addr::{Vpn, VpnRange};

    #[test]
    fn a_page_dropped_and_translated_again_is_a_refault() {
        let meter = Meter::default();
        let pages = VpnRange::new(Vpn(4), Vpn(6)).unwrap();
        assert!(meter.take_spans().is_empty());
        meter.faulted(VpnRange::single(Vpn(4)));
        meter.begin(pages);
        meter.dropped(VpnRange::single(Vpn(4)));
        assert_eq!(meter.open(), 1);
        meter.end(pages);
        meter.end(pages);
        meter.faulted(VpnRange::single(Vpn(4)));
        meter.faulted(VpnRange::single(Vpn(5)));
        let bill = meter.bill();
        assert_eq!((bill.windows, bill.dropped), (1, 1));
        assert_eq!((bill.faults, bill.refaults), (3, 1));
        assert_eq!(bill.in_windows, bill.longest);
        let spans = meter.take_spans();
        assert_eq!((spans.len(), spans[0].range), (1, pages));
        assert_eq!(spans[0].end - spans[0].begin, bill.longest);
        assert_eq!(meter.open(), 0);
    }
}
