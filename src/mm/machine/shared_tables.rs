//! Tables of 2-MiB entries that mappings of one file of huge pages share (`huge_pmd_share`).
//!
//! Where shared mappings of the same kind cover the same 1 GiB of such a file, Linux gives them one
//! table: an entry that one address space makes is there in all of them, without a fault. An
//! operation that takes entries away, or rights of entries, gives up the whole table instead
//! (`huge_pmd_unshare`), in a window over all of it; the entries stay for the others. Only the last
//! one works on the entries themselves.
//!
//! Here each address space has a table of its own, and the tables of a group are kept alike: what a
//! fault enters into one is entered into all. The lock of the groups is held meanwhile, and taken
//! to leave a group, so no entry comes after an address space has left. Under it leaves are locked,
//! and nothing else.

use super::SpaceAt;
use crate::{
    addr::{PUD_PAGES, Vpn, VpnRange},
    error::NoMemory,
    rmap::RmapTarget,
    sync::{AtomicUsize, Mutex, Ordering},
};
use smallvec::SmallVec;
use std::{
    fmt,
    sync::{Arc, Weak},
};

/// A table of 1 GiB of an address space.
#[derive(Clone)]
struct Member {
    space: SpaceAt,
    target: Weak<dyn RmapTarget>,
    /// The first page.
    start: Vpn,
}

impl Member {
    fn is_at(&self, space: SpaceAt, start: Vpn) -> bool {
        self.space == space && self.start == start
    }
    /// Returns the pages of the table.
    fn pages(&self) -> VpnRange {
        VpnRange::new(self.start, self.start.plus(PUD_PAGES)).expect("a table is not empty")
    }
}

/// Tables that are alike.
type Group = SmallVec<[Member; 2]>;

/// Returns the group of a table.
fn group_of(groups: &mut [Group], space: SpaceAt, start: Vpn) -> Option<&mut Group> {
    let mut groups = groups.iter_mut();
    groups.find(|group| group.iter().any(|m| m.is_at(space, start)))
}

/// The tables of a machine that may be shared, in groups of those that are alike.
#[derive(Default)]
pub(in crate::mm) struct SharedTables {
    groups: Mutex<Vec<Group>>,
    /// The number of groups, read without the lock.
    count: AtomicUsize,
}

impl SharedTables {
    fn change<T>(&self, change: impl FnOnce(&mut Vec<Group>) -> T) -> T {
        let mut groups = self.groups.lock();
        let out = change(&mut groups);
        groups.retain(|group| !group.is_empty());
        self.count.store(groups.len(), Ordering::Release);
        out
    }
    fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }
    /// Returns true if the address space has a table at `start` that others may share.
    pub(in crate::mm) fn has(&self, space: SpaceAt, start: Vpn) -> bool {
        !self.is_empty() && group_of(&mut self.groups.lock(), space, start).is_some()
    }
    /// Enters the new table of an address space, in the group of `other`, if that has a table
    /// still, or in a new one. Returns true if it is in the group.
    pub(in crate::mm) fn enter(
        &self,
        (space, target, start): (SpaceAt, Weak<dyn RmapTarget>, Vpn),
        other: Option<(SpaceAt, Vpn)>,
    ) -> bool {
        let new = Member {
            space,
            target,
            start,
        };
        self.change(
            |groups| match other.and_then(|(space, at)| group_of(groups, space, at)) {
                Some(group) => {
                    group.push(new);
                    true
                }
                None => {
                    groups.push(SmallVec::from_iter([new]));
                    false
                }
            },
        )
    }
    /// Runs `enter` for each other table of the group of this one, with the page there that is
    /// `page` here. A table whose entry cannot be made leaves the group.
    pub(in crate::mm) fn spread(
        &self,
        space: SpaceAt,
        page: VpnRange,
        mut enter: impl FnMut(&dyn RmapTarget, VpnRange) -> Result<(), NoMemory>,
    ) {
        if self.is_empty() {
            return;
        }
        let start = page.start().align_down(PUD_PAGES);
        let offset = page.start().0 - start.0;
        // The last handle of an address space must not go under the lock.
        let mut handles = Vec::new();
        self.change(|groups| {
            let Some(group) = group_of(groups, space, start) else {
                return;
            };
            group.retain(|member| {
                let Some(target) = member.target.upgrade() else {
                    return false;
                };
                let first = member.start.plus(offset);
                let there = VpnRange::new(first, first.plus(page.pages()));
                let there = there.expect("a page is not empty");
                let stays = member.is_at(space, start) || enter(&*target, there).is_ok();
                handles.push(target);
                stays
            });
        });
    }
    /// Leaves the groups of all tables that overlap `range` and that others share; returns the
    /// blocks of these tables, whose entries the caller drops.
    pub(in crate::mm) fn leave(&self, space: SpaceAt, range: VpnRange) -> Vec<VpnRange> {
        if self.is_empty() {
            return Vec::new();
        }
        let goes = |m: &Member| m.space == space && m.pages().overlaps(range);
        self.change(|groups| {
            let mut left = Vec::new();
            for group in groups.iter_mut().filter(|group| group.len() > 1) {
                // One address space may map the file twice: its last table stays.
                while group.len() > 1
                    && let Some(nth) = group.iter().position(goes)
                {
                    left.push(group.remove(nth).pages());
                }
            }
            left
        })
    }
    /// Forgets the tables of the address space that lie in `range`: they go.
    pub(in crate::mm) fn forget(&self, space: SpaceAt, range: VpnRange) {
        if self.is_empty() {
            return;
        }
        let goes = |m: &Member| m.space == space && range.covers(m.pages());
        self.change(|groups| {
            groups
                .iter_mut()
                .for_each(|group| group.retain(|m| !goes(m)))
        });
    }
}

impl fmt::Debug for SharedTables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedTables").finish_non_exhaustive()
    }
}

/// Returns the number of an address space in a reverse map.
pub(in crate::mm) fn number_of(space: &Arc<dyn RmapTarget>) -> SpaceAt {
    Arc::as_ptr(space).addr()
}
