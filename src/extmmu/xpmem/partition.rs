//! The remote side: entries that only its own threads can clear, and the answers that it owes.

use crate::{
    addr::{Vpn, VpnRange},
    notifier::Cached,
    sync::{Condvar, Mutex},
};
use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc, Weak,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

/// Names a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "remote", derive(serde::Serialize, serde::Deserialize))]
pub struct PartitionId(pub u32);

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

/// Which owner, and which of his pages.
pub(super) type Key = (u64, Vpn);

/// Clear these, and answer with the serial number.
struct Recall {
    serial: u64,
    owner: u64,
    range: VpnRange,
}

#[derive(Default)]
struct State {
    entries: BTreeMap<Key, Cached>,
    manners: Manners,
    /// Recalls that are not answered.
    owed: HashSet<u64>,
    next: u64,
    cut_off: bool,
    answers: u64,
}

/// What the partition and its thread share.
struct Shared {
    state: Mutex<State>,
    answered: Condvar,
}

/// A partition of the machine, with a thread of its own that answers recalls.
pub struct Partition {
    id: PartitionId,
    shared: Arc<Shared>,
    recalls: Sender<Recall>,
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
    /// A partition, alive.
    pub fn new(id: PartitionId) -> Arc<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            answered: Condvar::new(),
        });
        let (recalls, asked) = channel();
        let weak = Arc::downgrade(&shared);
        // It ends when the partition goes, and with it the other end of the channel.
        let _detached = thread::spawn(move || answer(&weak, &asked));
        Arc::new(Self {
            id,
            shared,
            recalls,
        })
    }
    /// Its name.
    pub fn id(&self) -> PartitionId {
        self.id
    }
    /// Sets how it answers from now on.
    pub fn set_manners(&self, manners: Manners) {
        self.shared.state.lock().manners = manners;
    }
    /// Ends it: its entries are gone, and what it owes counts as answered.
    pub fn kill(&self) {
        let mut state = self.shared.state.lock();
        state.cut_off = true;
        state.entries.clear();
        state.owed.clear();
        drop(state);
        self.shared.answered.notify_all();
    }
    /// Whether it is dead or fenced off.
    pub fn is_cut_off(&self) -> bool {
        self.shared.state.lock().cut_off
    }
    /// Entries that it could use now.
    pub fn entries(&self) -> usize {
        self.shared.state.lock().entries.len()
    }
    /// Answers that it has given, those too many among them.
    pub fn answers(&self) -> u64 {
        self.shared.state.lock().answers
    }
    /// Enters a page; `false` if the partition is cut off.
    pub(super) fn enter(&self, key: Key, cached: Cached) -> bool {
        let mut state = self.shared.state.lock();
        if !state.cut_off {
            state.entries.insert(key, cached);
        }
        !state.cut_off
    }
    /// Runs `f` on the entry of a page while it cannot be cleared. `Err`: the partition is cut off.
    pub(super) fn with_entry<T>(
        &self,
        key: Key,
        f: impl FnOnce(&Cached) -> Option<T>,
    ) -> Result<Option<T>, PartitionId> {
        let state = self.shared.state.lock();
        if state.cut_off {
            return Err(self.id);
        }
        Ok(state.entries.get(&key).and_then(f))
    }
    /// Shows the entries of an owner's pages in `range`.
    pub(super) fn show(&self, owner: u64, range: VpnRange, visit: &mut dyn FnMut(&Cached)) {
        let state = self.shared.state.lock();
        let mine = (owner, range.start())..(owner, range.end());
        state.entries.range(mine).for_each(|(_, c)| visit(c));
    }
    /// Asks for pages of an owner to be cleared; `None` if it has none of them. The answer is waited for by
    /// [`wait`](Self::wait): all partitions are asked before the first is waited for.
    pub(super) fn ask(&self, owner: u64, range: VpnRange) -> Option<u64> {
        let mut state = self.shared.state.lock();
        let pages = (owner, range.start())..(owner, range.end());
        if state.cut_off || state.entries.range(pages).next().is_none() {
            return None;
        }
        let serial = state.next;
        state.next += 1;
        state.owed.insert(serial);
        drop(state);
        let recall = Recall {
            serial,
            owner,
            range,
        };
        if self.recalls.send(recall).is_err() {
            self.kill();
        }
        Some(serial)
    }
    /// Waits for an answer, or for the death of who owes it. After the deadline the partition is fenced off: whatever
    /// its threads do, they reach nothing any more.
    pub(super) fn wait(&self, serial: u64, deadline: Instant) -> Answer {
        let mut state = self.shared.state.lock();
        while state.owed.contains(&serial) {
            let late = self.shared.answered.wait_until(&mut state, deadline);
            if late.timed_out() && state.owed.contains(&serial) {
                drop(state);
                self.kill();
                return Answer::Fenced;
            }
        }
        Answer::Cleared
    }
}

/// The partition's thread.
fn answer(shared: &Weak<Shared>, asked: &Receiver<Recall>) {
    while let Ok(recall) = asked.recv() {
        let Some(shared) = shared.upgrade() else {
            return;
        };
        let manners = shared.state.lock().manners;
        match manners {
            Manners::Hangs => continue,
            Manners::Slow(time) => thread::sleep(time),
            _ => {}
        }
        let mut state = shared.state.lock();
        if manners == Manners::Dies {
            state.cut_off = true;
            state.entries.clear();
            state.owed.clear();
        } else {
            let mine = |(owner, page): &Key| *owner == recall.owner && recall.range.contains(*page);
            if manners != Manners::Lies {
                state.entries.retain(|key, _| !mine(key));
            }
            state.owed.remove(&recall.serial);
            state.answers += 1 + u64::from(manners == Manners::Twice);
        }
        drop(state);
        shared.answered.notify_all();
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
