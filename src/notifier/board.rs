//! Which windows of an address space are open, and whose tickets those that closed have spoiled.
//!
//! Guarantee: [`BoardTicket::verdict`] says `Current` only if no window over the pages is open and none has closed since the
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

use super::{
    blocks::{BUCKETS, block_of, blocks_of, bucket_of, buckets_of, indices, overlaps_block},
    observer::WindowObserver,
    outcome::Verdict,
};
use crate::{
    addr::{Vpn, VpnRange},
    sync::{AtomicUsize, CachePadded, Condvar, IdSource, Mutex, OnceLock, Ordering},
};
use smallvec::SmallVec;
use std::sync::Arc;

/// A ticket that is out.
#[derive(Debug)]
struct IssuedTicket {
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
    tickets: SmallVec<[IssuedTicket; 2]>,
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
    pub(super) observer: OnceLock<Arc<dyn WindowObserver>>,
}

/// A place on the board from which a driver's lookup is watched; given up when dropped.
#[must_use]
#[derive(Debug)]
pub(super) struct BoardTicket<'b> {
    board: &'b Board,
    id: u64,
    at: Vpn,
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
    fn take(&mut self, id: u64) -> IssuedTicket {
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
            observer: OnceLock::new(),
        }
    }
}

impl Board {
    fn bucket(&self, at: Vpn) -> &Bucket {
        &self.buckets[bucket_of(block_of(at))].0
    }
    /// The buckets whose bits are set.
    fn among(&self, bits: u64) -> impl Iterator<Item = &Bucket> {
        // A wide range asks for all 64 bits, a narrow one only for those of buckets that exist.
        let existing = bits & u64::MAX >> (64 - BUCKETS);
        indices(existing).map(|nth| &self.buckets[nth].0)
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
        state.tickets.push(IssuedTicket {
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

impl Board {
    /// Has `watch` look on from now on; the first one stays.
    pub(super) fn set_observer(&self, watch: Arc<dyn WindowObserver>) {
        let _first = self.observer.get_or_init(|| watch);
    }
    /// A number for the next window, if anybody looks on.
    pub(super) fn next_window_id(&self) -> u64 {
        static NEXT: IdSource = IdSource::starting_at(0);
        self.observer.get().map_or(0, |_| NEXT.next())
    }
    pub(super) fn observe(&self, f: impl FnOnce(&dyn WindowObserver)) {
        if let Some(watch) = self.observer.get() {
            f(&**watch);
        }
    }
}

impl BoardTicket<'_> {
    /// Whether what was found for `range` since this was drawn still holds: the page, or pages of the block around it.
    /// To be asked under the driver's lock.
    pub(super) fn verdict(self, range: VpnRange) -> Verdict {
        let (board, id, at) = (self.board, self.id, self.at);
        std::mem::forget(self);
        // First: see the second invariant.
        let wide = board.is_wide_open(range);
        let mut state = board.bucket(at).state.lock();
        let ticket = state.take(id);
        let page = range == VpnRange::single(at);
        assert!(
            page || blocks_of(range) == (block_of(at), block_of(at)),
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
