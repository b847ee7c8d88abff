//! A bucket of the board: the open windows and the tickets of some 2-MiB blocks.
//!
//! Guarantee: one step of [`Bucket::begin`] puts a window into the bucket, and one step of
//! [`Bucket::end`] takes it out and marks the tickets of its pages.
//!
//! How: a window or a ticket that is *alone*, without another window or ticket in its bucket, is
//! one word. It comes and goes by one atomic operation each, and no lock is taken. All others are
//! in a list under a lock, and the word says so.
//!
//! ```text
//!          begin, draw                   lock
//! FREE  ─────────────────▶  alone  ─────────────────▶  LISTED
//!       ◀─────────────────         (joins the list)      │
//!          end, settle                                   │
//!       ◀────────────────────────────────────────────────┘
//!                  unlock, with an empty list
//! ```
//!
//! Only the holder of the lock moves the word to `LISTED` and from there. So with the lock held and
//! the word `LISTED`, the list is all that there is. A thread that locks the bucket, or looks at
//! it, and a window or ticket that comes or goes alone are ordered by their operations on the word:
//! the second of the two sees everything that the first did before. A ticket that still finds
//! itself alone has met no window. See `docs/adr/0035-a-window-alone-is-one-word.md`.

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
/// The lowest bits of the word of a window that is alone.
const WINDOW: u64 = 2;
/// The lowest bits of the word of a ticket that is alone.
const TICKET: u64 = 3;
/// Bits of these two.
const KIND_BITS: u32 = 2;
/// Bits of the length of a range, in pages.
const LEN_BITS: u32 = 13;
/// Bits of the first page of a range.
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
    /// The number of tickets drawn so far here, from which the next one gets its id.
    drawn: u64,
}

/// The id of a ticket that was alone when it was drawn. One at most has it in the list: while it is
/// there, no ticket is alone.
const ALONE: u64 = u64::MAX;

/// A ticket of the list, which has had no verdict yet.
#[derive(Debug)]
struct IssuedTicket {
    id: u64,
    /// The pages that are looked up, all of one block.
    pages: VpnRange,
    /// Set when a window over one of the pages has closed.
    page: bool,
    /// Set when a window over a page of its block has closed: for a verdict on a huge page.
    block: bool,
}

/// A ticket, as its holder knows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct DrawnTicket {
    id: u64,
    pub(super) pages: VpnRange,
}

/// A bucket that is locked, with everything in it in the list.
pub(super) struct LockedBucket<'b> {
    word: &'b AtomicU64,
    list: MutexGuard<'b, Listed>,
}

impl IssuedTicket {
    fn new(id: u64, pages: VpnRange) -> Self {
        Self {
            id,
            pages,
            page: false,
            block: false,
        }
    }
}

/// Returns true if a verdict for `range` is one on pages of the ticket, and not on the block around
/// them.
fn covers(ticket: VpnRange, range: VpnRange) -> bool {
    let of_pages = ticket.covers(range);
    let (first, block) = (block_of(ticket.start()), blocks_of(range));
    assert!(
        of_pages || block == (first, first),
        "{range} is not around {ticket:?}"
    );
    of_pages
}

/// The verdict on a ticket that is alone: no window of its bucket is open, or was since it was
/// drawn.
#[inline]
fn verdict_alone(ticket: VpnRange, wide: bool, range: VpnRange) -> TicketVerdict {
    let _checked = covers(ticket, range);
    match wide {
        true => TicketVerdict::Busy,
        false => TicketVerdict::Current,
    }
}

/// Takes one of several equal ranges from a list.
pub(super) fn take_one(open: &mut SmallVec<[VpnRange; 2]>, range: VpnRange) {
    let at = open.iter().position(|o| *o == range);
    open.swap_remove(at.expect("a window ends once"));
}

/// Returns the word of a window or a ticket that is alone; `None` if the range does not fit in one.
#[inline]
fn word_of(kind: u64, range: VpnRange) -> Option<u64> {
    let (start, len) = (range.start().0, range.end().0 - range.start().0);
    let fits = start >> START_BITS == 0 && len >> LEN_BITS == 0;
    fits.then_some((start << LEN_BITS | len) << KIND_BITS | kind)
}

/// Returns the range of the window or the ticket that is alone, if a word is one of this kind.
fn alone(word: u64, kind: u64) -> Option<VpnRange> {
    let range = word >> KIND_BITS;
    let (start, len) = (range >> LEN_BITS, range & ((1 << LEN_BITS) - 1));
    let is = word & ((1 << KIND_BITS) - 1) == kind;
    is.then(|| VpnRange::new(Vpn(start), Vpn(start + len)).expect("a range is not empty"))
}

impl Bucket {
    /// Puts a window into the bucket.
    #[inline]
    pub(super) fn begin(&self, range: VpnRange) {
        if !word_of(WINDOW, range).is_some_and(|word| self.replace(FREE, word)) {
            self.begin_listed(range);
        }
    }
    #[inline(never)]
    fn begin_listed(&self, range: VpnRange) {
        self.lock().list.open.push(range);
    }
    /// Takes a window out, and marks the tickets of its pages.
    #[inline]
    pub(super) fn end(&self, range: VpnRange) {
        // The word of a window is that of no other: an equal one would have found it there.
        if !word_of(WINDOW, range).is_some_and(|word| self.replace(word, FREE)) {
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
    /// Draws a ticket for pages of one block.
    #[inline]
    pub(super) fn draw(&self, pages: VpnRange) -> DrawnTicket {
        let alone = word_of(TICKET, pages).is_some_and(|word| self.replace(FREE, word));
        let id = if alone {
            ALONE
        } else {
            self.draw_listed(pages)
        };
        DrawnTicket { id, pages }
    }
    #[inline(never)]
    fn draw_listed(&self, pages: VpnRange) -> u64 {
        self.lock().list.draw(pages)
    }
    /// Takes a ticket out, and returns the verdict on it for `range`, with the answer of the list
    /// of wide windows.
    #[inline]
    pub(super) fn settle(&self, drawn: DrawnTicket, wide: bool, range: VpnRange) -> TicketVerdict {
        if self.leave_alone(drawn) {
            return verdict_alone(drawn.pages, wide, range);
        }
        let mut locked = self.lock();
        let ticket = locked.list.take(drawn.id);
        locked.list.verdict(wide, &ticket, range)
    }
    /// Returns the verdict as [`settle`](Self::settle) does, and keeps the ticket.
    pub(super) fn look_at(&self, drawn: DrawnTicket, wide: bool, range: VpnRange) -> TicketVerdict {
        if drawn.id == ALONE && word_of(TICKET, drawn.pages) == Some(self.look()) {
            return verdict_alone(drawn.pages, wide, range);
        }
        let locked = self.lock();
        locked
            .list
            .verdict(wide, locked.list.ticket(drawn.id), range)
    }
    /// Takes a ticket out.
    pub(super) fn take(&self, drawn: DrawnTicket) {
        if !self.leave_alone(drawn) {
            self.lock().list.take(drawn.id);
        }
    }
    /// Takes a ticket out that is alone still, and returns true if it was.
    #[inline]
    fn leave_alone(&self, drawn: DrawnTicket) -> bool {
        // No other ticket has this word: in the list, this one would keep the word at `LISTED`.
        let word = word_of(TICKET, drawn.pages).filter(|_| drawn.id == ALONE);
        word.is_some_and(|word| self.replace(word, FREE))
    }
    #[inline]
    fn replace(&self, old: u64, new: u64) -> bool {
        let word = &self.word;
        // SeqCst, as a window then reads the chain: see `Board::is_idle`.
        let done = word.compare_exchange(old, new, Ordering::SeqCst, Ordering::Relaxed);
        done.is_ok()
    }
    /// Marks the tickets of a window that is not in the bucket and closes.
    pub(super) fn mark(&self, range: VpnRange) {
        // A ticket that is not in the bucket yet is drawn after this, and its look-up finds
        // everything that changed in the window.
        let word = self.look();
        if word == LISTED || alone(word, TICKET).is_some() {
            self.lock().list.mark(range);
        }
    }
    /// Returns the windows of the bucket.
    pub(super) fn windows(&self) -> SmallVec<[VpnRange; 2]> {
        match self.look() {
            LISTED => self.lock().list.open.clone(),
            word => alone(word, WINDOW).into_iter().collect(),
        }
    }
    /// Returns true if a window of the bucket overlaps `range`.
    pub(super) fn is_open(&self, range: VpnRange) -> bool {
        match self.look() {
            LISTED => self.lock().list.is_open(range),
            word => alone(word, WINDOW).is_some_and(|open| open.overlaps(range)),
        }
    }
    /// Returns true if a window is open. The word is read by a load, so the caller has to have
    /// ordered it.
    pub(super) fn has_window(&self) -> bool {
        match self.word.load(Ordering::Acquire) {
            LISTED => !self.lock().list.open.is_empty(),
            word => alone(word, WINDOW).is_some(),
        }
    }
    /// Reads the word by a read-modify-write operation, which is ordered with the changes of it; a
    /// plain load would not do.
    fn look(&self) -> u64 {
        self.word.fetch_or(0, Ordering::AcqRel)
    }
    /// Locks the bucket. A window or a ticket that is alone joins the list.
    pub(super) fn lock(&self) -> LockedBucket<'_> {
        let mut list = self.list.lock();
        if self.word.load(Ordering::Acquire) != LISTED {
            let word = self.word.swap(LISTED, Ordering::SeqCst);
            list.open.extend(alone(word, WINDOW));
            list.tickets
                .extend(alone(word, TICKET).map(|pages| IssuedTicket::new(ALONE, pages)));
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
    fn draw(&mut self, pages: VpnRange) -> u64 {
        let id = self.drawn;
        self.drawn += 1;
        self.tickets.push(IssuedTicket::new(id, pages));
        id
    }
    fn find(&self, id: u64) -> usize {
        let at = self.tickets.iter().position(|t| t.id == id);
        at.expect("a ticket is given up once")
    }
    /// Takes a ticket out of the list.
    fn take(&mut self, id: u64) -> IssuedTicket {
        let at = self.find(id);
        self.tickets.swap_remove(at)
    }
    /// Returns a ticket of the list.
    fn ticket(&self, id: u64) -> &IssuedTicket {
        &self.tickets[self.find(id)]
    }
    /// Returns the verdict on a ticket for `range`, with the answer of the list of wide windows.
    fn verdict(&self, wide: bool, ticket: &IssuedTicket, range: VpnRange) -> TicketVerdict {
        let of_pages = covers(ticket.pages, range);
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
