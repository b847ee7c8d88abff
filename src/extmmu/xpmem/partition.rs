//! What an owner knows of a partition: the entries that only it can clear, and the answers that it owes. The same for a
//! thread of this process and for another process; between the two differs how the question travels.

use super::pages::Pages;
use crate::{
    addr::{Vpn, VpnRange},
    notifier::Cached,
    sync::{Condvar, Mutex},
};
use smallvec::SmallVec;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};
use thiserror::Error;

/// Nobody is waited for longer: from here on the clock may have no number.
pub(super) const LONGEST: Duration = Duration::from_secs(1 << 32);

/// Names a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "remote", derive(serde::Serialize, serde::Deserialize))]
pub struct PartitionId(pub u32);

/// Which owner, and which of his pages.
pub(super) type Key = (u64, Vpn);

/// Clear these, and answer with the serial number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Recall {
    pub(super) serial: u64,
    pub(super) owner: u64,
    pub(super) range: VpnRange,
}

/// How an owner's questions reach a partition.
pub(super) trait Link: Send + Sync {
    /// Puts a question; `false` if nobody is there to hear it.
    fn ask(&self, recall: Recall) -> bool;
    /// Nothing more is heard of the partition or told to it. Its entries are worth nothing: they lead through the
    /// [`Partition`], or to memory that the pages are taken home from before anything else happens to them.
    fn fence(&self);
}

/// How a partition answers recalls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Manners {
    /// At once.
    #[default]
    Prompt,
    /// After a while.
    Slow(Duration),
    /// Twice.
    Twice,
    /// Never.
    Hangs,
    /// It dies of the question.
    Dies,
    /// It answers without having cleared anything: a mistake, to see it found.
    Lies,
}

/// What a partition did that the protocol does not know. It is fenced off for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Breach {
    /// It answered a recall twice, or one that it was never asked.
    #[error("it answered recall {0}, which it did not owe")]
    NotOwed(
        /// The number that it gave.
        u64,
    ),
    /// It sent what is no message.
    #[error("it sent what is no message")]
    Garbage,
    /// It asked on, with more questions open than it was told that it may have.
    #[error("it asked more than {0} questions at once")]
    TooMany(
        /// What it may have.
        usize,
    ),
}

/// The entries of each owner, sorted by him: few, mostly one.
#[derive(Default)]
pub(super) struct ByOwner(SmallVec<[(u64, Pages<Cached>); 1]>);

impl ByOwner {
    #[inline]
    fn find(&self, owner: u64) -> Result<usize, usize> {
        self.0.binary_search_by_key(&owner, |(id, _)| *id)
    }
    #[inline]
    fn of(&self, owner: u64) -> Option<&Pages<Cached>> {
        Some(&self.0[self.find(owner).ok()?].1)
    }
    fn of_mut(&mut self, owner: u64) -> &mut Pages<Cached> {
        let at = self.find(owner).unwrap_or_else(|at| {
            self.0.insert(at, (owner, Pages::default()));
            at
        });
        &mut self.0[at].1
    }
    fn len(&self) -> usize {
        self.0.iter().map(|(_, pages)| pages.len()).sum()
    }
}

#[derive(Default)]
pub(super) struct State {
    pub(super) entries: ByOwner,
    pub(super) manners: Manners,
    /// Recalls that are not answered.
    owed: BTreeMap<u64, Recall>,
    next: u64,
    cut_off: bool,
    answers: u64,
    breach: Option<Breach>,
}

/// A partition of the machine, as an owner sees it. One of this process has a thread of its own that answers recalls.
pub struct Partition {
    id: PartitionId,
    pub(super) state: Mutex<State>,
    answered: Condvar,
    link: Box<dyn Link>,
}

/// How a recall ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// All is cleared, by the partition or by its death.
    Cleared,
    /// It has not answered, and is fenced off now.
    Fenced,
}

impl Partition {
    pub(super) fn with_link(id: PartitionId, link: Box<dyn Link>) -> Self {
        Self {
            id,
            state: Mutex::default(),
            answered: Condvar::new(),
            link,
        }
    }
    /// Its name.
    pub fn id(&self) -> PartitionId {
        self.id
    }
    /// Ends it: its entries are gone, and what it owes counts as answered.
    pub fn kill(&self) {
        self.state.lock().cut_off = true;
        self.link.fence();
        self.died();
    }
    /// It is gone, whoever ended it.
    pub(super) fn died(&self) {
        let mut state = self.state.lock();
        state.cut_off = true;
        state.entries = ByOwner::default();
        state.owed.clear();
        drop(state);
        self.answered.notify_all();
    }
    /// It did what the protocol does not know.
    pub(super) fn broke(&self, breach: Breach) {
        self.state.lock().breach.get_or_insert(breach);
        self.kill();
    }
    pub(super) fn take_breach(&self) -> Option<Breach> {
        self.state.lock().breach.take()
    }
    /// Whether it is dead or fenced off.
    pub fn is_cut_off(&self) -> bool {
        self.state.lock().cut_off
    }
    /// Entries that it could use now.
    pub fn entries(&self) -> usize {
        let state = self.state.lock();
        state.entries.len()
    }
    /// Answers that it has given, those too many among them.
    pub fn answers(&self) -> u64 {
        self.state.lock().answers
    }
    /// Enters a page; `false` if the partition is cut off.
    pub(super) fn enter(&self, (owner, page): Key, cached: Cached) -> bool {
        let mut state = self.state.lock();
        if !state.cut_off {
            let _same_page = state.entries.of_mut(owner).put(page, cached);
        }
        !state.cut_off
    }
    /// Runs `f` on the entry of a page while it cannot be cleared. `Err`: the partition is cut off.
    pub(super) fn with_entry<T>(
        &self,
        (owner, page): Key,
        f: impl FnOnce(&Cached) -> Option<T>,
    ) -> Result<Option<T>, PartitionId> {
        let state = self.state.lock();
        if state.cut_off {
            return Err(self.id);
        }
        let pages = state.entries.of(owner);
        Ok(pages.and_then(|pages| pages.get(page)).and_then(f))
    }
    /// Shows the entries of an owner's pages in `range`.
    pub(super) fn show(&self, owner: u64, range: VpnRange, visit: &mut dyn FnMut(&Cached)) {
        let state = self.state.lock();
        if let Some(pages) = state.entries.of(owner) {
            pages.show(range, visit);
        }
    }
    /// Asks for pages of an owner to be cleared; `None` if it has none of them. The answer is waited for by
    /// [`wait`](Self::wait): all partitions are asked before the first is waited for.
    pub(super) fn ask(&self, owner: u64, range: VpnRange) -> Option<u64> {
        let mut state = self.state.lock();
        let pages = state.entries.of(owner);
        if state.cut_off || !pages.is_some_and(|pages| pages.any_in(range)) {
            return None;
        }
        let serial = state.next;
        state.next += 1;
        let recall = Recall {
            serial,
            owner,
            range,
        };
        state.owed.insert(serial, recall);
        drop(state);
        if !self.link.ask(recall) {
            self.kill();
        }
        Some(serial)
    }
    /// An answer has come. What a dead partition says is not heard.
    ///
    /// # Errors
    ///
    /// [`Breach::NotOwed`]: it was not asked, or had answered already. It is to be told by [`broke`](Self::broke).
    pub(super) fn answer(&self, serial: u64, cleared: bool) -> Result<(), Breach> {
        let mut state = self.state.lock();
        if state.cut_off {
            return Ok(());
        }
        state.answers += 1;
        let recall = state.owed.remove(&serial).ok_or(Breach::NotOwed(serial))?;
        if cleared {
            let pages = state.entries.of_mut(recall.owner);
            pages.take_in(recall.range, |_, entries| entries.for_each(drop));
        }
        drop(state);
        self.answered.notify_all();
        Ok(())
    }
    /// Waits for an answer, or for the death of who owes it. After the deadline the partition is fenced off: whatever
    /// its threads do, they reach nothing any more.
    pub(super) fn wait(&self, serial: u64, deadline: Instant) -> Answer {
        let mut state = self.state.lock();
        while state.owed.contains_key(&serial) {
            let late = self.answered.wait_until(&mut state, deadline);
            if late.timed_out() && state.owed.contains_key(&serial) {
                drop(state);
                self.kill();
                return Answer::Fenced;
            }
        }
        Answer::Cleared
    }
}

impl std::fmt::Debug for Partition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Partition")
            .field("id", &self.id)
            .field("entries", &self.entries())
            .finish_non_exhaustive()
    }
}
