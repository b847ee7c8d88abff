//! A partition as its owner sees it: the entries that only the partition can clear, and the answers
//! that it owes.
//!
//! This part is common to partitions that are threads of this process and to those that are other
//! processes. The two differ in the [`Link`] over which questions travel.

use super::pages::Pages;
use crate::{
    addr::{Vpn, VpnRange},
    notifier::Cached,
    sync::{Condvar, Mutex, SpinLock},
};
use smallvec::SmallVec;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};
use thiserror::Error;

/// The longest time to wait for an answer: a later deadline may be beyond the clock.
pub(super) const LONGEST: Duration = Duration::from_secs(1 << 32);

/// The name of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct PartitionId(pub u32);

/// An owner, and one of its pages.
pub(super) type Key = (u64, Vpn);

/// The demand to clear a range, to be answered with the serial number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Recall {
    pub(super) serial: u64,
    pub(super) owner: u64,
    pub(super) range: VpnRange,
}

/// The way of an owner's questions to a partition.
pub(super) trait Link: Send + Sync {
    /// Sends a question. Returns false if there is no one at the other end.
    fn ask(&self, recall: Recall) -> bool;
    /// Cuts the link in both directions. The entries of the partition are worth nothing from then
    /// on: they lead through the [`Partition`], or to memory that pages leave before anything else
    /// happens to them.
    fn fence(&self);
}

/// The manner in which a partition answers recalls.
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
    /// The partition dies of the question.
    Dies,
    /// Without having cleared anything: a mistake, for a test that must find it.
    Lies,
}

/// A breach of the protocol, for which a partition is fenced off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Breach {
    /// The partition answered a recall twice, or one that was never sent.
    #[error("it answered recall {0}, which it did not owe")]
    NotOwed(
        /// The serial number of the answer.
        u64,
    ),
    /// The partition sent bytes that are not a message.
    #[error("it sent what is no message")]
    Garbage,
    /// The partition asked more questions at a time than it may.
    #[error("it asked more than {0} questions at once")]
    TooMany(
        /// The limit.
        usize,
    ),
}

/// The entries of each owner, sorted by owner: few, mostly one.
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

/// The part that accesses use.
#[derive(Default)]
struct Entries {
    of: ByOwner,
    /// Set when the partition is dead or fenced off; no entry comes after that.
    cut_off: bool,
}

impl Entries {
    /// Returns the entries, unless the partition is cut off. Then they are not used any more,
    /// though they may not have been dropped yet.
    fn usable(&self) -> Option<&ByOwner> {
        (!self.cut_off).then_some(&self.of)
    }
}

#[derive(Default)]
pub(super) struct State {
    pub(super) manners: Manners,
    /// The recalls that are not answered.
    owed: BTreeMap<u64, Recall>,
    next: u64,
    answers: u64,
    breach: Option<Breach>,
}

/// A partition of the machine, as an owner sees it. A partition in this process has a thread that
/// answers the owner's recalls: requests to give pages back before a window goes on.
pub struct Partition {
    id: PartitionId,
    /// Locked after `state`, where both are needed.
    entries: SpinLock<Entries>,
    pub(super) state: Mutex<State>,
    answered: Condvar,
    link: Box<dyn Link>,
}

/// The end of a recall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// All entries are cleared, by the partition or by its death.
    Cleared,
    /// The partition has not answered in time, and is fenced off now.
    Fenced,
}

impl Partition {
    pub(super) fn with_link(id: PartitionId, link: Box<dyn Link>) -> Self {
        Self {
            id,
            entries: SpinLock::default(),
            state: Mutex::default(),
            answered: Condvar::new(),
            link,
        }
    }
    /// Returns the name.
    pub fn id(&self) -> PartitionId {
        self.id
    }
    /// Kills the partition: its entries are gone, and the answers that it owes count as given.
    pub fn kill(&self) {
        self.entries.lock().cut_off = true;
        self.link.fence();
        self.died();
    }
    /// Records the death of the partition, by whatever cause.
    pub(super) fn died(&self) {
        let mut state = self.state.lock();
        // With the recalls: no answer is owed for entries that are gone.
        let mut entries = self.entries.lock();
        entries.cut_off = true;
        let gone = std::mem::take(&mut entries.of);
        drop(entries);
        state.owed.clear();
        drop(state);
        drop(gone);
        self.answered.notify_all();
    }
    /// Records a breach of the protocol, and kills the partition.
    pub(super) fn broke(&self, breach: Breach) {
        self.state.lock().breach.get_or_insert(breach);
        self.kill();
    }
    pub(super) fn take_breach(&self) -> Option<Breach> {
        self.state.lock().breach.take()
    }
    /// Returns true if the partition is dead or fenced off.
    pub fn is_cut_off(&self) -> bool {
        self.entries.lock().cut_off
    }
    /// Returns the number of entries that the partition could use now.
    pub fn entries(&self) -> usize {
        self.entries.lock().usable().map_or(0, ByOwner::len)
    }
    /// Returns the number of answers that came, superfluous ones included.
    pub fn answers(&self) -> u64 {
        self.state.lock().answers
    }
    /// Enters a page. Returns false if the partition is cut off.
    pub(super) fn enter(&self, (owner, page): Key, cached: Cached) -> bool {
        let mut entries = self.entries.lock();
        if !entries.cut_off {
            let _same_page = entries.of.of_mut(owner).put(page, cached);
        }
        !entries.cut_off
    }
    /// Runs `f` on the entry of a page while it cannot be cleared. `Err`: the partition is cut off.
    #[inline(always)]
    pub(super) fn with_entry<T>(
        &self,
        (owner, page): Key,
        f: impl FnOnce(&Cached) -> Option<T>,
    ) -> Result<Option<T>, PartitionId> {
        let entries = self.entries.lock();
        let of = entries.usable().ok_or(self.id)?;
        let pages = of.of(owner);
        Ok(pages.and_then(|pages| pages.get(page)).and_then(f))
    }
    /// Shows the entries of an owner's pages in `range`; none of a partition that is cut off.
    pub(super) fn show(&self, owner: u64, range: VpnRange, visit: &mut dyn FnMut(&Cached)) {
        let entries = self.entries.lock();
        if let Some(pages) = entries.usable().and_then(|of| of.of(owner)) {
            pages.show(range, visit);
        }
    }
    /// Asks the partition to clear pages of an owner. Returns the serial number for
    /// [`wait`](Self::wait), or `None` if the partition has none of the pages. A window asks all
    /// partitions before it waits for the first.
    pub(super) fn ask(&self, owner: u64, range: VpnRange) -> Option<u64> {
        let mut state = self.state.lock();
        let entries = self.entries.lock();
        let pages = entries.usable().and_then(|of| of.of(owner));
        if !pages.is_some_and(|pages| pages.any_in(range)) {
            return None;
        }
        drop(entries);
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
    /// Accepts an answer. Answers of a dead partition are ignored.
    ///
    /// # Errors
    ///
    /// [`Breach::NotOwed`]: the recall was never sent, or answered already. The caller reports it
    /// with [`broke`](Self::broke).
    pub(super) fn answer(&self, serial: u64, cleared: bool) -> Result<(), Breach> {
        let mut state = self.state.lock();
        if self.is_cut_off() {
            return Ok(());
        }
        state.answers += 1;
        let recall = state.owed.remove(&serial).ok_or(Breach::NotOwed(serial))?;
        if cleared {
            let mut entries = self.entries.lock();
            let pages = entries.of.of_mut(recall.owner);
            pages.take_in(recall.range, |_, entries| entries.for_each(drop));
        }
        drop(state);
        self.answered.notify_all();
        Ok(())
    }
    /// Waits for an answer, or for the death of the partition. After the deadline the partition is
    /// fenced off: its threads reach nothing from then on.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Machine, Mm, PAGE_SIZE,
        extmmu::xpmem::{Owner, OwnerConfig},
        mm::MmapArgs,
        notifier::Access,
    };
    use std::sync::{Arc, OnceLock, Weak};

    /// Looks at the partition while it is fenced off.
    struct Looks(Weak<Partition>, Arc<OnceLock<usize>>);

    impl Link for Looks {
        fn ask(&self, _: Recall) -> bool {
            true
        }
        fn fence(&self) {
            let entries = self.0.upgrade().map(|partition| partition.entries());
            self.1.set(entries.unwrap()).unwrap();
        }
    }

    /// A partition dies in two steps. A window that looks between them finds no entry.
    #[test]
    fn entries_of_a_partition_that_is_cut_off_are_none() {
        let machine = Machine::new(crate::MachineConfig::default());
        let mut thread = machine.enter().unwrap();
        let mut cx = thread.cx();
        let mm = Mm::new(&machine);
        let addr = mm.mmap(&mut cx, &MmapArgs::anonymous(PAGE_SIZE)).unwrap();
        mm.store(&mut cx, addr, 7).unwrap();
        let (owner, _stays) = Owner::attach(&mut cx, &mm, OwnerConfig::default());
        let segment = owner.make(crate::addr::Vpn::containing(addr).into(), Access::Read);
        let seen = Arc::new(OnceLock::new());
        let partition = Arc::new_cyclic(|me: &Weak<Partition>| {
            let looks = Looks(Weak::clone(me), Arc::clone(&seen));
            Partition::with_link(PartitionId(1), Box::new(looks))
        });
        let attached = owner.import(&partition, segment, 0, 1).unwrap();
        let mut byte = [0];
        attached.read(&mut cx, 0, &mut byte).unwrap();
        assert_eq!((byte, partition.entries()), ([7], 1));
        partition.kill();
        assert_eq!(seen.get(), Some(&0));
        mm.exit(&mut cx);
    }
}
