//! The windows of an address space that are open, and the tickets that closed windows have made
//! stale.
//!
//! Guarantee: [`BoardTicket::verdict`] returns `Current` only if no window over the pages is open
//! and none has closed since the ticket was drawn; and in that case it always returns `Current`. A
//! window over other pages makes no ticket stale, however many such windows have closed.
//!
//! How: a page belongs to a bucket by its 2-MiB block (see `blocks` and `bucket`). A ticket lies in
//! the bucket of its page; a window is written into the bucket of each of its blocks. A window that
//! closes marks the tickets there whose pages it covers. So the board keeps nothing of closed
//! windows, and windows and tickets of different blocks seldom meet. A *wide* window, one over many
//! blocks, is written into one list of its own, and goes through all buckets when it closes
//! (`docs/adr/0010-tickets-lie-on-the-board.md`).
//!
//! Invariants, which the loom models check:
//!
//! 1. In one bucket the end of a window is one step: a ticket that no longer finds the window open
//!    has been marked by it.
//! 2. A wide window marks all tickets before it leaves its list, and a verdict looks at that list
//!    before it looks at the mark. So a ticket that finds the list empty finds the mark.
//! 3. A window that opens after the look at the board still needs the driver's lock, under which
//!    the verdict is given: the page was noted in the gate's filter before. It drops the entry that
//!    was made meanwhile.

use super::{
    blocks::{BUCKETS, block_of, blocks_of, bucket_of, buckets_of, indices},
    bucket::{Bucket, DrawnTicket, take_one},
    observer::WindowObserver,
    outcome::TicketVerdict,
};
use crate::{
    addr::{Vpn, VpnRange},
    sync::{AtomicUsize, CachePadded, Condvar, IdSource, Mutex, OnceLock, Ordering, fence},
};
use smallvec::SmallVec;
use std::sync::Arc;

/// The windows over so many blocks that they are in no bucket.
#[derive(Debug, Default)]
struct Wide {
    open: Mutex<SmallVec<[VpnRange; 2]>>,
    /// The number of windows in the list. It changes under the lock and is read without.
    len: AtomicUsize,
    changed: Condvar,
}

/// The board of one address space: open windows and tickets.
pub(crate) struct Board {
    buckets: Box<[CachePadded<Bucket>]>,
    wide: CachePadded<Wide>,
    pub(super) observer: OnceLock<Arc<dyn WindowObserver>>,
}

/// A place on the board that records the windows which close over a page. It is given up when
/// dropped.
#[must_use]
#[derive(Debug)]
pub(super) struct BoardTicket<'b> {
    board: &'b Board,
    drawn: DrawnTicket,
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
    /// Returns the buckets whose bits are set.
    fn among(&self, bits: u64) -> impl Iterator<Item = &Bucket> {
        // A wide range asks for all 64 bits, a narrow one only for those of buckets that exist.
        let existing = bits & u64::MAX >> (64 - BUCKETS);
        indices(existing).map(|nth| &self.buckets[nth].0)
    }
    /// Returns the bucket, if there is but one: most windows are of one block.
    #[inline(always)]
    fn only(&self, bits: u64) -> Option<&Bucket> {
        let nth = bits.trailing_zeros() as usize;
        bits.is_power_of_two()
            .then(|| &self.buckets[nth % BUCKETS].0)
    }
    /// Writes a window on the board. The caller does this before it asks any driver.
    pub(super) fn begin(&self, range: VpnRange) {
        self.begin_in(range, buckets_of(range));
    }
    /// Writes a window on the board as [`begin`](Self::begin) does, whose buckets are known.
    #[inline]
    pub(super) fn begin_in(&self, range: VpnRange, buckets: Option<u64>) {
        let Some(bits) = buckets else {
            let mut open = self.wide.0.open.lock();
            open.push(range);
            self.wide.0.len.fetch_add(1, Ordering::AcqRel);
            return;
        };
        match self.only(bits) {
            Some(bucket) => bucket.begin(range),
            None => self.among(bits).for_each(|bucket| bucket.begin(range)),
        }
    }
    /// Takes a window from the board that [`begin`](Self::begin) wrote with this range, and marks
    /// the tickets of its pages.
    pub(super) fn end(&self, range: VpnRange) {
        self.end_in(range, buckets_of(range));
    }
    /// Takes a window from the board as [`end`](Self::end) does, whose buckets are known.
    #[inline]
    pub(super) fn end_in(&self, range: VpnRange, buckets: Option<u64>) {
        match buckets.map(|bits| (bits, self.only(bits))) {
            Some((_, Some(bucket))) => bucket.end(range),
            Some((bits, None)) => self.among(bits).for_each(|bucket| bucket.end(range)),
            None => self.end_wide(range),
        }
    }
    #[inline(never)]
    fn end_wide(&self, range: VpnRange) {
        self.among(u64::MAX).for_each(|bucket| bucket.mark(range));
        let mut open = self.wide.0.open.lock();
        take_one(&mut open, range);
        self.wide.0.len.fetch_sub(1, Ordering::AcqRel);
        drop(open);
        self.wide.0.changed.notify_all();
    }
    /// Returns true if a wide window overlaps `range`.
    ///
    /// Acquire pairs with the release of `end`: a length without the window shows its marks, which
    /// is the second invariant.
    fn is_wide_open(&self, range: VpnRange) -> bool {
        let wide = &self.wide.0;
        wide.len.load(Ordering::Acquire) > 0
            && wide.open.lock().iter().any(|open| open.overlaps(range))
    }
    /// Returns true if a window overlaps `range` now.
    ///
    /// The list of wide windows is read under its lock, not by its length alone: a driver that was
    /// put on the chain before and a window that missed it there have both gone through that lock,
    /// so the driver finds the window.
    pub(super) fn is_busy(&self, range: VpnRange) -> bool {
        let mut buckets = self.among(buckets_of(range).unwrap_or(u64::MAX));
        let wide = self.wide.0.open.lock().iter().any(|o| o.overlaps(range));
        wide || buckets.any(|bucket| bucket.is_open(range))
    }
    /// Returns true if no window is open, but perhaps such as call the drivers that were on the
    /// chain before.
    ///
    /// The words of the buckets are loaded after a fence. A window writes its word and reads the
    /// chain by sequentially consistent operations. So of a driver on the chain and a window, this
    /// finds the window, or the window finds the driver.
    pub(super) fn is_idle(&self) -> bool {
        fence(Ordering::SeqCst);
        let narrow = self.buckets.iter().any(|bucket| bucket.0.has_window());
        !narrow && self.wide.0.open.lock().is_empty()
    }
    /// Draws a ticket for a page, or for pages of one block. The caller does this before it looks
    /// the pages up.
    pub(super) fn draw(&self, pages: VpnRange) -> BoardTicket<'_> {
        debug_assert_eq!(blocks_of(pages).0, blocks_of(pages).1, "more than a block");
        let drawn = self.bucket(pages.start()).draw(pages);
        BoardTicket { board: self, drawn }
    }
    /// Sleeps until no window overlaps `range`.
    pub(super) fn wait_idle(&self, range: VpnRange) {
        let mut again = true;
        while std::mem::take(&mut again) {
            for bucket in self.among(buckets_of(range).unwrap_or(u64::MAX)) {
                again |= bucket.wait_idle(range);
            }
            let mut open = self.wide.0.open.lock();
            while open.iter().any(|open| open.overlaps(range)) {
                self.wide.0.changed.wait(&mut open);
                again = true;
            }
        }
    }
    /// Returns the number of windows that are open now.
    pub(super) fn open(&self) -> usize {
        self.ranges().len()
    }
    /// Returns the ranges of the windows that are open now.
    pub(super) fn ranges(&self) -> Vec<VpnRange> {
        let mut all = Vec::new();
        for (i, bucket) in self.buckets.iter().enumerate() {
            // A window over several blocks is counted in the bucket of its first block.
            let home = |open: &VpnRange| bucket_of(block_of(open.start())) == i;
            all.extend(bucket.0.windows().into_iter().filter(home));
        }
        all.extend(self.wide.0.open.lock().iter());
        all
    }
}

impl Board {
    /// Installs the observer of the address space; the first one stays.
    pub(super) fn set_observer(&self, watch: Arc<dyn WindowObserver>) {
        let _first = self.observer.get_or_init(|| watch);
    }
    /// Returns a number for the next window if an observer is installed, and 0 otherwise.
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
    /// Returns `Current` if the look-up that followed the ticket still holds for `range`: the pages
    /// of the ticket, or pages of the block around them.
    ///
    /// The caller holds the driver's lock.
    pub(super) fn verdict(self, range: VpnRange) -> TicketVerdict {
        let (board, drawn) = (self.board, self.drawn);
        std::mem::forget(self);
        // The wide list comes first: see the second invariant.
        let wide = board.is_wide_open(range);
        board.bucket(drawn.pages.start()).settle(drawn, wide, range)
    }
    /// Returns the verdict as [`verdict`](Self::verdict) does, and keeps the ticket.
    pub(super) fn look(&self, range: VpnRange) -> TicketVerdict {
        let wide = self.board.is_wide_open(range);
        self.bucket().look_at(self.drawn, wide, range)
    }
    fn bucket(&self) -> &Bucket {
        self.board.bucket(self.drawn.pages.start())
    }
}

impl Drop for BoardTicket<'_> {
    fn drop(&mut self) {
        self.bucket().take(self.drawn);
    }
}

impl std::fmt::Debug for Board {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Board")
            .field("open", &self.open())
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
