//! Which windows of an address space are open, and whose tickets those that closed have spoiled.
//!
//! Guarantee: [`BoardTicket::settle`] says `Current` only if no window over the pages is open and none has closed since the
//! ticket was drawn; and says so then always. A window elsewhere makes nobody try again, however many have closed.
//!
//! How: an address belongs to one of [`BUCKETS`] by its 2-MiB block, and each bucket has a lock. A ticket lies in the
//! bucket of its page; a window is written into those of its blocks. When it closes it marks the tickets there that it
//! concerns. So nothing of closed windows is remembered, and windows and tickets of different blocks seldom meet.
//! A window over many blocks is written into one list of its own, and goes through all buckets when it closes.
//!
//! Invariants, for whoever models this:
//!
//! 1. In one bucket a window's end is one step: whoever no longer finds it open finds his ticket marked.
//! 2. A wide window marks all tickets before it leaves its list; a ticket is settled by looking at that list first. Who
//!    finds it gone finds the mark.
//! 3. A window that opens after the look needs the driver's lock, under which tickets are settled, and drops what was
//!    entered by then.

use super::watch::WindowWatch;
use crate::{
    addr::{PMD_PAGES, Vpn, VpnRange},
    sync::{AtomicUsize, CachePadded, Condvar, Mutex, OnceLock, Ordering},
};
use smallvec::SmallVec;
use std::sync::Arc;

/// Groups of 2-MiB blocks; one for each bit of a word. A model checker has enough with fewer.
const BUCKETS: usize = if cfg!(loom) { 2 } else { 64 };
/// A window over more blocks than this is wide.
const NARROW: u64 = 8;

/// Outcome of settling a ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing happened to the pages.
    Current,
    /// A window over them is open.
    Busy,
    /// One has closed since.
    Stale,
}

/// A ticket that is out.
#[derive(Debug)]
struct Entry {
    id: u64,
    at: Vpn,
    /// A window over the page has closed.
    page: bool,
    /// A window over the block around it has closed.
    block: bool,
}

#[derive(Debug, Default)]
struct State {
    open: SmallVec<[VpnRange; 2]>,
    tickets: SmallVec<[Entry; 2]>,
    /// Tickets drawn so far.
    drawn: u64,
}

#[derive(Debug, Default)]
struct Bucket {
    state: Mutex<State>,
    changed: Condvar,
}

/// Windows over so many blocks that they are in no bucket.
#[derive(Debug, Default)]
struct Wide {
    open: Mutex<SmallVec<[VpnRange; 2]>>,
    /// How many there are. Changed under the lock, read without.
    len: AtomicUsize,
    changed: Condvar,
}

/// The board of one address space.
pub(crate) struct Board {
    buckets: Box<[CachePadded<Bucket>]>,
    wide: CachePadded<Wide>,
    pub(super) watch: OnceLock<Arc<dyn WindowWatch>>,
}

/// A place on the board from which a driver's lookup is watched; given up when dropped.
#[must_use]
#[derive(Debug)]
pub(super) struct BoardTicket<'b> {
    board: &'b Board,
    id: u64,
    at: Vpn,
}

#[inline]
fn block_of(at: Vpn) -> u64 {
    at.0 / PMD_PAGES
}

/// Neighbouring blocks lie in different buckets, and those at the same place in different tables too.
#[inline]
fn bucket_of(block: u64) -> usize {
    let hash = block.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58;
    usize::try_from(hash).expect("six bits") % BUCKETS
}

/// The buckets of a range, as bits; none of a wide one.
#[inline]
pub(super) fn buckets_of(range: VpnRange) -> Option<u64> {
    let (first, last) = (block_of(range.start()), block_of(Vpn(range.end().0 - 1)));
    if first == last {
        return Some(1 << bucket_of(first));
    }
    (last - first < NARROW).then(|| (first..=last).fold(0, |bits, b| bits | 1 << bucket_of(b)))
}

fn overlaps_block(range: VpnRange, at: Vpn) -> bool {
    let block = block_of(at);
    block_of(range.start()) <= block && block <= block_of(Vpn(range.end().0 - 1))
}

/// Takes one of several that are equal.
fn take_one(open: &mut SmallVec<[VpnRange; 2]>, range: VpnRange) {
    let at = open.iter().position(|o| *o == range);
    open.swap_remove(at.expect("a window ends once"));
}

impl State {
    fn is_open(&self, range: VpnRange) -> bool {
        self.open.iter().any(|open| open.overlaps(range))
    }
    fn mark(&mut self, range: VpnRange) {
        for ticket in &mut self.tickets {
            ticket.page |= range.contains(ticket.at);
            ticket.block |= overlaps_block(range, ticket.at);
        }
    }
    fn take(&mut self, id: u64) -> Entry {
        let at = self.tickets.iter().position(|t| t.id == id);
        self.tickets
            .swap_remove(at.expect("a ticket is given up once"))
    }
}

impl Default for Board {
    fn default() -> Self {
        Self {
            buckets: (0..BUCKETS).map(|_| CachePadded::default()).collect(),
            wide: CachePadded::default(),
            watch: OnceLock::new(),
        }
    }
}

impl Board {
    fn bucket(&self, at: Vpn) -> &Bucket {
        &self.buckets[bucket_of(block_of(at))].0
    }
    /// The buckets whose bits are set.
    fn among(&self, mut bits: u64) -> impl Iterator<Item = &Bucket> {
        // Those that do not exist have no bit in a narrow range, and all bits are asked for of a wide one.
        bits &= u64::MAX >> (64 - BUCKETS);
        std::iter::from_fn(move || {
            let i = bits.trailing_zeros() as usize;
            // Takes the lowest bit away.
            bits &= bits.wrapping_sub(1);
            Some(&self.buckets.get(i)?.0)
        })
    }
    /// A window begins. To be called before any driver is asked.
    pub(super) fn begin(&self, range: VpnRange) {
        let Some(bits) = buckets_of(range) else {
            let mut open = self.wide.0.open.lock();
            open.push(range);
            self.wide.0.len.fetch_add(1, Ordering::AcqRel);
            return;
        };
        for bucket in self.among(bits) {
            bucket.state.lock().open.push(range);
        }
    }
    /// A window ends that began with the same range.
    pub(super) fn end(&self, range: VpnRange) {
        let narrow = buckets_of(range);
        for bucket in self.among(narrow.unwrap_or(u64::MAX)) {
            let mut state = bucket.state.lock();
            state.mark(range);
            if narrow.is_some() {
                take_one(&mut state.open, range);
                drop(state);
                bucket.changed.notify_all();
            }
        }
        if narrow.is_none() {
            let mut open = self.wide.0.open.lock();
            take_one(&mut open, range);
            self.wide.0.len.fetch_sub(1, Ordering::AcqRel);
            drop(open);
            self.wide.0.changed.notify_all();
        }
    }
    fn is_wide_open(&self, range: VpnRange) -> bool {
        let wide = &self.wide.0;
        wide.len.load(Ordering::Acquire) > 0
            && wide.open.lock().iter().any(|open| open.overlaps(range))
    }
    /// Whether a window overlaps `range` now. A driver that was put on the chain before finds every window that has not
    /// seen it there: both went through one lock, so the wide list is not asked by its length alone.
    pub(super) fn is_busy(&self, range: VpnRange) -> bool {
        let mut buckets = self.among(buckets_of(range).unwrap_or(u64::MAX));
        let wide = self.wide.0.open.lock().iter().any(|o| o.overlaps(range));
        wide || buckets.any(|bucket| bucket.state.lock().is_open(range))
    }
    /// To be called before the page is looked up.
    pub(super) fn draw(&self, at: Vpn) -> BoardTicket<'_> {
        let mut state = self.bucket(at).state.lock();
        let id = state.drawn;
        state.drawn += 1;
        state.tickets.push(Entry {
            id,
            at,
            page: false,
            block: false,
        });
        BoardTicket {
            board: self,
            id,
            at,
        }
    }
    /// Sleeps until no window overlaps `range`.
    pub(super) fn wait_idle(&self, range: VpnRange) {
        let mut again = true;
        while std::mem::take(&mut again) {
            for bucket in self.among(buckets_of(range).unwrap_or(u64::MAX)) {
                let mut state = bucket.state.lock();
                while state.is_open(range) {
                    bucket.changed.wait(&mut state);
                    again = true;
                }
            }
            let mut open = self.wide.0.open.lock();
            while open.iter().any(|open| open.overlaps(range)) {
                self.wide.0.changed.wait(&mut open);
                again = true;
            }
        }
    }
    /// Windows open now.
    pub(super) fn open(&self) -> usize {
        self.ranges().len()
    }
    /// Their ranges.
    pub(super) fn ranges(&self) -> Vec<VpnRange> {
        let mut all = Vec::new();
        for (i, bucket) in self.buckets.iter().enumerate() {
            // A window over several blocks counts where its first one is.
            let home = |open: &&VpnRange| bucket_of(block_of(open.start())) == i;
            all.extend(bucket.0.state.lock().open.iter().filter(home));
        }
        all.extend(self.wide.0.open.lock().iter());
        all
    }
}

impl BoardTicket<'_> {
    /// Whether what was found for `range` since this was drawn still holds: the page, or pages of the block around it.
    /// To be asked under the driver's lock.
    pub(super) fn settle(self, range: VpnRange) -> Verdict {
        let (board, id, at) = (self.board, self.id, self.at);
        std::mem::forget(self);
        // First: see the second invariant.
        let wide = board.is_wide_open(range);
        let mut state = board.bucket(at).state.lock();
        let ticket = state.take(id);
        let page = range == VpnRange::single(at);
        assert!(
            page || (block_of(range.start()) == block_of(at)
                && block_of(Vpn(range.end().0 - 1)) == block_of(at)),
            "{range:?} is not around {at:?}"
        );
        if wide || state.is_open(range) {
            Verdict::Busy
        } else if ticket.page || (ticket.block && !page) {
            Verdict::Stale
        } else {
            Verdict::Current
        }
    }
}

impl Drop for BoardTicket<'_> {
    fn drop(&mut self) {
        self.board.bucket(self.at).state.lock().take(self.id);
    }
}

impl std::fmt::Debug for Board {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Board")
            .field("open", &self.open())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
