//! A bucket of the board: the open windows and the tickets of some 2-MiB blocks.
//!
//! Guarantee: one step of [`Bucket::begin`] puts a window into the bucket, and one step of
//! [`Bucket::end`] takes it out and marks the tickets of its pages.
//!
//! How: a window that is *alone*, without another window and without tickets in its bucket, is one
//! word. It comes and goes by one atomic operation each, and no lock is taken. All other windows
//! and all tickets are in a list under a lock, and the word says so.
//!
//! ```text
//!            begin                       lock
//! FREE  ─────────────────▶  alone  ─────────────────▶  LISTED
//!       ◀─────────────────         (joins the list)      │
//!             end                                        │
//!       ◀────────────────────────────────────────────────┘
//!                  unlock, with an empty list
//! ```
//!
//! Only the holder of the lock moves the word to `LISTED` and from there. So with the lock held and
//! the word `LISTED`, the list is all that there is. A thread that locks the bucket, or looks at
//! it, and a window that comes or goes alone are ordered by their operations on the word: the
//! second of the two sees everything that the first did before. See
//! `docs/adr/0035-a-window-alone-is-one-word.md`.

use super::{
    blocks::{block_of, blocks_of, overlaps_block},
    outcome::TicketVerdict,
};
use crate::{
    addr::{Vpn, VpnRange},
    sync::{AtomicU64, Condvar, Mutex, MutexGuard, Ordering},
};
use smallvec::SmallVec;
use std::ops::{Deref, DerefMut};

/// The word of a bucket without windows and tickets.
const FREE: u64 = 0;
/// The word of a bucket whose windows and tickets are in the list.
const LISTED: u64 = 1;
/// Bits of the length of a window, in pages, in the word of a window that is alone.
const LEN_BITS: u32 = 13;
/// Bits of its first page.
const START_BITS: u32 = 48;

/// Windows and tickets of the blocks with one hash.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    word: AtomicU64,
    list: Mutex<Listed>,
    changed: Condvar,
}

/// The windows and tickets of a bucket that are in its list.
#[derive(Debug, Default)]
pub(super) struct Listed {
    open: SmallVec<[VpnRange; 2]>,
    tickets: SmallVec<[IssuedTicket; 2]>,
    /// The number of tickets drawn so far, from which the next one gets its id.
    drawn: u64,
}

/// A ticket that was drawn and has had no verdict yet.
#[derive(Debug)]
pub(super) struct IssuedTicket {
    id: u64,
    /// The pages that are looked up, all of one block.
    pages: VpnRange,
    /// Set when a window over one of the pages has closed.
    page: bool,
    /// Set when a window over a page of its block has closed: for a verdict on a huge page.
    block: bool,
}

/// A bucket that is locked, with everything in it in the list.
pub(super) struct LockedBucket<'b> {
    word: &'b AtomicU64,
    list: MutexGuard<'b, Listed>,
}

/// Takes one of several equal ranges from a list.
pub(super) fn take_one(open: &mut SmallVec<[VpnRange; 2]>, range: VpnRange) {
    let at = open.iter().position(|o| *o == range);
    open.swap_remove(at.expect("a window ends once"));
}

/// Returns the word of a window that is alone; `None` if the range does not fit in one.
#[inline]
fn word_of(range: VpnRange) -> Option<u64> {
    let (start, len) = (range.start().0, range.end().0 - range.start().0);
    let fits = start >> START_BITS == 0 && len >> LEN_BITS == 0;
    // An even number above `FREE`: a range is not empty.
    fits.then_some((start << LEN_BITS | len) << 1)
}

/// Returns the window that is alone, if a word is one.
fn window_of(word: u64) -> Option<VpnRange> {
    let (start, len) = (word >> 1 >> LEN_BITS, word >> 1 & ((1 << LEN_BITS) - 1));
    let alone = word != FREE && word != LISTED;
    alone.then(|| VpnRange::new(Vpn(start), Vpn(start + len)).expect("the range of a window"))
}

impl Bucket {
    /// Puts a window into the bucket.
    #[inline]
    pub(super) fn begin(&self, range: VpnRange) {
        if !word_of(range).is_some_and(|alone| self.replace(FREE, alone)) {
            self.lock().list.open.push(range);
        }
    }
    /// Takes a window out, and marks the tickets of its pages.
    #[inline]
    pub(super) fn end(&self, range: VpnRange) {
        // The word of a window is that of no other: an equal one would have found it there.
        if !word_of(range).is_some_and(|alone| self.replace(alone, FREE)) {
            self.end_listed(range);
        }
    }
    #[inline(never)]
    fn end_listed(&self, range: VpnRange) {
        let mut locked = self.lock();
        locked.list.mark(range);
        take_one(&mut locked.list.open, range);
        drop(locked);
        self.changed.notify_all();
    }
    #[inline]
    fn replace(&self, old: u64, new: u64) -> bool {
        let word = &self.word;
        let done = word.compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed);
        done.is_ok()
    }
    /// Marks the tickets of a window that is not in the bucket and closes.
    pub(super) fn mark(&self, range: VpnRange) {
        // A ticket that is not in the list yet is drawn after this, and its look-up finds
        // everything that changed in the window.
        if self.look() == LISTED {
            self.lock().list.mark(range);
        }
    }
    /// Returns the windows of the bucket.
    pub(super) fn windows(&self) -> SmallVec<[VpnRange; 2]> {
        match self.look() {
            LISTED => self.lock().list.open.clone(),
            word => window_of(word).into_iter().collect(),
        }
    }
    /// Returns true if a window of the bucket overlaps `range`.
    pub(super) fn is_open(&self, range: VpnRange) -> bool {
        match self.look() {
            LISTED => self.lock().list.is_open(range),
            word => window_of(word).is_some_and(|alone| alone.overlaps(range)),
        }
    }
    /// Reads the word by a read-modify-write operation, which is ordered with the changes of it; a
    /// plain load would not do.
    fn look(&self) -> u64 {
        self.word.fetch_or(0, Ordering::AcqRel)
    }
    /// Locks the bucket. A window that is alone joins the list.
    pub(super) fn lock(&self) -> LockedBucket<'_> {
        let mut list = self.list.lock();
        if self.word.load(Ordering::Acquire) != LISTED {
            let word = self.word.swap(LISTED, Ordering::AcqRel);
            if let Some(alone) = window_of(word) {
                list.open.push(alone);
            }
        }
        let word = &self.word;
        LockedBucket { word, list }
    }
    /// Sleeps until no window overlaps `range`. Returns true if it has slept.
    pub(super) fn wait_idle(&self, range: VpnRange) -> bool {
        let mut slept = false;
        loop {
            // Locked anew each time: another thread may have found the list empty meanwhile.
            let mut locked = self.lock();
            if !locked.list.is_open(range) {
                return slept;
            }
            self.changed.wait(&mut locked.list);
            slept = true;
        }
    }
}

impl Drop for LockedBucket<'_> {
    fn drop(&mut self) {
        let listed = self.word.load(Ordering::Relaxed) == LISTED;
        // Not so after a sleep, in which another thread found the list empty.
        if listed && self.list.open.is_empty() && self.list.tickets.is_empty() {
            self.word.store(FREE, Ordering::Release);
        }
    }
}

impl Deref for LockedBucket<'_> {
    type Target = Listed;
    fn deref(&self) -> &Listed {
        &self.list
    }
}

impl DerefMut for LockedBucket<'_> {
    fn deref_mut(&mut self) -> &mut Listed {
        &mut self.list
    }
}

impl Listed {
    /// Returns true if a window overlaps `range`.
    pub(super) fn is_open(&self, range: VpnRange) -> bool {
        self.open.iter().any(|open| open.overlaps(range))
    }
    fn mark(&mut self, range: VpnRange) {
        for ticket in &mut self.tickets {
            ticket.page |= range.overlaps(ticket.pages);
            ticket.block |= overlaps_block(range, ticket.pages.start());
        }
    }
    /// Draws a ticket for pages of one block, and returns its number.
    pub(super) fn draw(&mut self, pages: VpnRange) -> u64 {
        let id = self.drawn;
        self.drawn += 1;
        self.tickets.push(IssuedTicket {
            id,
            pages,
            page: false,
            block: false,
        });
        id
    }
    fn find(&self, id: u64) -> usize {
        let at = self.tickets.iter().position(|t| t.id == id);
        at.expect("a ticket is given up once")
    }
    /// Takes a ticket out of the list.
    pub(super) fn take(&mut self, id: u64) -> IssuedTicket {
        let at = self.find(id);
        self.tickets.swap_remove(at)
    }
    /// Returns a ticket of the list.
    pub(super) fn ticket(&self, id: u64) -> &IssuedTicket {
        &self.tickets[self.find(id)]
    }
    /// Returns the verdict on a ticket for `range`, with the answer of the list of wide windows.
    pub(super) fn verdict(
        &self,
        wide: bool,
        ticket: &IssuedTicket,
        range: VpnRange,
    ) -> TicketVerdict {
        let of_pages = ticket.pages.covers(range);
        let (first, block) = (block_of(ticket.pages.start()), blocks_of(range));
        assert!(
            of_pages || block == (first, first),
            "{range} is not around {:?}",
            ticket.pages
        );
        if wide || self.is_open(range) {
            TicketVerdict::Busy
        } else if ticket.page || (ticket.block && !of_pages) {
            TicketVerdict::Stale
        } else {
            TicketVerdict::Current
        }
    }
    /// Returns the number of tickets.
    #[cfg(all(test, not(loom)))]
    pub(super) fn tickets(&self) -> usize {
        self.tickets.len()
    }
}
