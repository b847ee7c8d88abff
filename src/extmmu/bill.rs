//! The cost of an address space's life to an external MMU: windows, faults, retries, and waits.

use crate::{
    addr::{PMD_PAGES, Vpn, VpnRange},
    notifier::{block_of, hash_of},
    sync::{AtomicBool, AtomicU64, CachePadded, Ordering, Sharded, SpinLock},
};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// Counts of the events of one MMU. Counts are the same in each run of one thread; times are not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Bill {
    /// Windows that began.
    pub windows: u64,
    /// Pages whose translations were removed for windows.
    pub dropped: u64,
    /// Translations that were established.
    pub faults: u64,
    /// Translations of pages that had been removed for a window before.
    pub refaults: u64,
    /// Look-ups that were repeated, since a window was open or had closed meanwhile.
    pub retries: u64,
    /// Demands that others acknowledged: flushes of processors, purges, answers of partitions.
    pub acknowledgements: u64,
    /// Demands that waited for a resource in use by another demand, such as a purge handle.
    pub waits: u64,
    /// Aging calls.
    pub agings: u64,
    /// Page requests of a device, or page faults of its work queue.
    pub requests: u64,
    /// Pages that were translated on advice.
    pub prefetched: u64,
    /// Pages that were pinned.
    pub pins: u64,
    /// Pages that moved to memory of the device, or from there.
    pub migrations: u64,
    /// The time from the beginnings of windows to their ends, added up.
    pub in_windows: Duration,
    /// The longest time that one window was open.
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
        self.requests += other.requests;
        self.prefetched += other.prefetched;
        self.pins += other.pins;
        self.migrations += other.migrations;
        self.in_windows += other.in_windows;
        self.longest = self.longest.max(other.longest);
    }
}

/// One window as one MMU saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The pages.
    pub range: VpnRange,
    /// The time at which the MMU was called for the beginning.
    pub begin: Instant,
    /// The time at which the MMU was called for the end of the window.
    pub end: Instant,
}

/// Counts into a [`Bill`], and records windows one by one from the first call of
/// [`take_spans`](Self::take_spans) on.
///
/// Threads that count at the same time seldom share a line: pages and windows are counted by 2-MiB
/// block, all else by thread.
#[derive(Debug)]
pub struct Meter {
    shares: Box<[CachePadded<SpinLock<Counts>>]>,
    tallies: Sharded<Tally>,
    spans: AtomicBool,
}

/// The number of shares, a power of two. One is enough for a model checker.
const SHARES: usize = if cfg!(loom) { 1 } else { 16 };

/// The counts of the pages and windows of some blocks.
#[derive(Debug, Default)]
struct Counts {
    bill: Bill,
    open: Vec<(VpnRange, Instant)>,
    dropped: Dropped,
    spans: Vec<Span>,
}

/// The counts that concern no page.
#[derive(Debug, Default)]
struct Tally {
    retries: AtomicU64,
    acknowledgements: AtomicU64,
    waits: AtomicU64,
    agings: AtomicU64,
    requests: AtomicU64,
    prefetched: AtomicU64,
    pins: AtomicU64,
    migrations: AtomicU64,
}

/// A set of pages, as bits of their blocks.
#[derive(Debug, Default)]
struct Dropped(BTreeMap<u64, [u64; WORDS]>);

const WORDS: usize = (PMD_PAGES / 64) as usize;

impl Dropped {
    /// Returns the words that hold a range inside a block, each with its bits.
    fn words(range: VpnRange) -> impl Iterator<Item = (usize, u64)> {
        let (first, end) = (range.start().0 % PMD_PAGES, range.pages());
        let end = first + end;
        (first / 64..end.div_ceil(64)).map(move |word| {
            let below = |n: u64| match n.saturating_sub(word * 64) {
                n @ 0..64 => (1 << n) - 1,
                _ => u64::MAX,
            };
            let nth = usize::try_from(word).expect("eight at most");
            (nth, below(end) & !below(first))
        })
    }
    fn add(&mut self, range: VpnRange) {
        let of_block = self.0.entry(block_of(range.start())).or_default();
        for (nth, bits) in Self::words(range) {
            of_block[nth] |= bits;
        }
    }
    /// Removes the pages, and returns true if one of them was in the set.
    fn take(&mut self, range: VpnRange) -> bool {
        let Some(of_block) = self.0.get_mut(&block_of(range.start())) else {
            return false;
        };
        Self::words(range).fold(false, |any, (nth, bits)| {
            let hit = of_block[nth] & bits != 0;
            of_block[nth] &= !bits;
            any | hit
        })
    }
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            shares: (0..SHARES).map(|_| CachePadded::default()).collect(),
            tallies: Sharded::new(),
            spans: AtomicBool::new(false),
        }
    }
}

/// Cuts a range at the boundaries of blocks.
fn parts(range: VpnRange) -> impl Iterator<Item = VpnRange> {
    let mut from = range.start();
    std::iter::from_fn(move || {
        let end = VpnRange::block_of(from).end().min(range.end());
        let part = VpnRange::new(from, end)?;
        from = end;
        Some(part)
    })
}

impl Meter {
    /// Returns the counts of the block of a page.
    fn share(&self, at: Vpn) -> &SpinLock<Counts> {
        &self.shares[hash_of(block_of(at)) % SHARES].0
    }
    /// Returns the counts so far.
    pub fn bill(&self) -> Bill {
        let mut bill = Bill::default();
        for share in &self.shares {
            bill += share.0.lock().bill;
        }
        for tally in self.tallies.iter() {
            bill.retries += tally.retries.load(Ordering::Relaxed);
            bill.acknowledgements += tally.acknowledgements.load(Ordering::Relaxed);
            bill.waits += tally.waits.load(Ordering::Relaxed);
            bill.agings += tally.agings.load(Ordering::Relaxed);
            bill.requests += tally.requests.load(Ordering::Relaxed);
            bill.prefetched += tally.prefetched.load(Ordering::Relaxed);
            bill.pins += tally.pins.load(Ordering::Relaxed);
            bill.migrations += tally.migrations.load(Ordering::Relaxed);
        }
        bill
    }
    /// Returns the windows that have ended since the last call, in the order of their ends. The
    /// first call begins the recording, and returns none.
    pub fn take_spans(&self) -> Vec<Span> {
        self.spans.store(true, Ordering::Relaxed);
        let mut spans = Vec::new();
        for share in &self.shares {
            spans.append(&mut share.0.lock().spans);
        }
        spans.sort_by_key(|span| span.end);
        spans
    }
    /// A window begins. The demand of an unregistration, over everything, is not counted.
    pub fn begin(&self, range: VpnRange) {
        if range == VpnRange::ALL {
            return;
        }
        let now = Instant::now();
        let mut counts = self.share(range.start()).lock();
        counts.bill.windows += 1;
        counts.open.push((range, now));
    }
    /// Counts translations of these pages as removed for a window.
    pub fn dropped(&self, pages: VpnRange) {
        self.dropped_all([pages]);
    }
    /// Counts the translations of several runs of pages as removed; neighbours are counted
    /// together.
    pub fn dropped_all(&self, pages: impl IntoIterator<Item = VpnRange>) {
        let mut pages = pages.into_iter();
        let Some(mut run) = pages.next() else { return };
        for next in pages {
            let joined = VpnRange::new(run.start(), next.end());
            match joined.filter(|_| run.end() == next.start()) {
                Some(joined) => run = joined,
                None => self.drop_run(std::mem::replace(&mut run, next)),
            }
        }
        self.drop_run(run);
    }
    fn drop_run(&self, run: VpnRange) {
        // No page beyond the address space of a process has a translation.
        let run = run.intersect(VpnRange::TASK);
        for part in run.into_iter().flat_map(parts) {
            let mut counts = self.share(part.start()).lock();
            counts.bill.dropped += part.pages();
            counts.dropped.add(part);
        }
    }
    /// A window ends.
    pub fn end(&self, range: VpnRange) {
        let end = Instant::now();
        let mut counts = self.share(range.start()).lock();
        let Some(at) = counts.open.iter().position(|(open, _)| *open == range) else {
            return;
        };
        let (_, begin) = counts.open.swap_remove(at);
        let held = end - begin;
        if self.spans.load(Ordering::Relaxed) {
            counts.spans.push(Span { range, begin, end });
        }
        counts.bill.in_windows += held;
        counts.bill.longest = counts.bill.longest.max(held);
    }
    /// Counts a translation of these pages, all of one block.
    pub fn faulted(&self, pages: VpnRange) {
        let mut counts = self.share(pages.start()).lock();
        counts.bill.faults += 1;
        let again = counts.dropped.take(pages);
        counts.bill.refaults += u64::from(again);
    }
    /// Counts a look-up that was repeated.
    pub fn retried(&self) {
        let tally = self.tallies.mine();
        tally.retries.fetch_add(1, Ordering::Relaxed);
    }
    /// Counts acknowledgements of others.
    pub fn acknowledged(&self, times: u64) {
        let tally = self.tallies.mine();
        tally.acknowledgements.fetch_add(times, Ordering::Relaxed);
    }
    /// Counts a demand that waited for another one.
    pub fn waited(&self) {
        self.tallies.mine().waits.fetch_add(1, Ordering::Relaxed);
    }
    /// Counts an aging call.
    pub fn aged(&self) {
        self.tallies.mine().agings.fetch_add(1, Ordering::Relaxed);
    }
    /// Counts a page request.
    pub fn requested(&self) {
        let tally = self.tallies.mine();
        tally.requests.fetch_add(1, Ordering::Relaxed);
    }
    /// Counts pages that were translated on advice.
    pub fn prefetched(&self, pages: u64) {
        let tally = self.tallies.mine();
        tally.prefetched.fetch_add(pages, Ordering::Relaxed);
    }
    /// Counts pages that were pinned.
    pub fn pinned(&self, pages: u64) {
        let tally = self.tallies.mine();
        tally.pins.fetch_add(pages, Ordering::Relaxed);
    }
    /// Counts pages that moved to memory of the device, or from there.
    pub fn migrated(&self, pages: u64) {
        let tally = self.tallies.mine();
        tally.migrations.fetch_add(pages, Ordering::Relaxed);
    }
    /// Returns the number of windows that have begun and not ended.
    pub fn open(&self) -> usize {
        self.shares.iter().map(|s| s.0.lock().open.len()).sum()
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

    #[test]
    fn pages_are_counted_across_words_and_blocks() {
        let meter = Meter::default();
        let range = |first, end| VpnRange::new(Vpn(first), Vpn(end)).unwrap();
        let singles = (500..530).map(|n| VpnRange::single(Vpn(n)));
        meter.dropped_all(singles.chain([range(1024, 1536)]));
        assert_eq!(meter.bill().dropped, 30 + 512);
        for (pages, refaults) in [
            (range(499, 500), 0),
            (range(530, 531), 0),
            (range(511, 512), 1),
            (range(511, 512), 1),
            (range(512, 513), 2),
            (range(1024, 1536), 3),
            (range(1535, 1536), 3),
        ] {
            meter.faulted(pages);
            assert_eq!(meter.bill().refaults, refaults, "{pages:?}");
        }
    }
}
