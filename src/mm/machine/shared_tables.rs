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
//!
//! Rule: *whether a table is joined is decided under the lock of the groups*. A fault finds a table
//! by the reverse map, where the VMA may change the next moment. So each group has the kind of its
//! mappings ([`TableKind`]). An operation that changes a VMA changes the kind of the tables that
//! are not shared, in its window: VMAs of the old kind do not join them.

use super::SpaceAt;
use crate::{
    addr::{PUD_PAGES, Vpn, VpnRange},
    error::NoMemory,
    mm::entry::flags::VmFlags,
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

/// The part of a file that a table maps, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::mm) struct TableKind {
    /// The address of the reverse map of the file. The VMA keeps it until its tables are closed.
    pub(in crate::mm) mapping: usize,
    /// The page of the file at the start of the table.
    pub(in crate::mm) first: u64,
    /// The flags of the VMA on which its entries depend.
    pub(in crate::mm) flags: VmFlags,
}

/// Tables that are alike.
struct Group {
    /// The kind of the mappings that may join; `None`: none may.
    kind: Option<TableKind>,
    members: SmallVec<[Member; 2]>,
}

impl Group {
    fn has(&self, space: SpaceAt, start: Vpn) -> bool {
        self.members.iter().any(|m| m.is_at(space, start))
    }
    /// Returns the table if it is the only one.
    fn only(&self) -> Option<&Member> {
        match &*self.members {
            [only] => Some(only),
            _ => None,
        }
    }
}

/// Returns the group of a table.
fn group_of(groups: &mut [Group], space: SpaceAt, start: Vpn) -> Option<&mut Group> {
    groups.iter_mut().find(|group| group.has(space, start))
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
        groups.retain(|group| !group.members.is_empty());
        self.count.store(groups.len(), Ordering::Release);
        out
    }
    fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }
    /// Returns true if the address space has a table of this kind at `start` that others may share.
    pub(in crate::mm) fn offers(&self, space: SpaceAt, start: Vpn, kind: TableKind) -> bool {
        !self.is_empty()
            && group_of(&mut self.groups.lock(), space, start)
                .is_some_and(|group| group.kind == Some(kind))
    }
    /// Lets others join the table of the address space at `start`, if it was closed, as one of this
    /// kind. Returns true if it has a table there.
    pub(in crate::mm) fn offer(&self, space: SpaceAt, start: Vpn, kind: TableKind) -> bool {
        if self.is_empty() {
            return false;
        }
        let mut groups = self.groups.lock();
        let Some(group) = group_of(&mut groups, space, start) else {
            return false;
        };
        if group.only().is_some() {
            group.kind.get_or_insert(kind);
        }
        true
    }
    /// Enters the new table of an address space, in the group of `other`, if that has a table of
    /// this kind still, or in a new one. Returns true if it is in the group.
    pub(in crate::mm) fn enter(
        &self,
        (space, target, start): (SpaceAt, Weak<dyn RmapTarget>, Vpn),
        kind: TableKind,
        other: Option<(SpaceAt, Vpn)>,
    ) -> bool {
        let new = Member {
            space,
            target,
            start,
        };
        self.change(|groups| {
            let found = other.and_then(|(space, at)| group_of(groups, space, at));
            match found.filter(|group| group.kind == Some(kind)) {
                Some(group) => {
                    group.members.push(new);
                    true
                }
                None => {
                    let (kind, members) = (Some(kind), SmallVec::from_iter([new]));
                    groups.push(Group { kind, members });
                    false
                }
            }
        })
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
            group.members.retain(|member| {
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
        self.leave_and(space, range, |_| ())
    }
    /// Does the same as [`leave`](Self::leave) for a VMA that changes. Each table that stays has
    /// the kind from now on that `becomes` returns for its first page; if none, no other joins it
    /// until it is [offered](Self::offer).
    pub(in crate::mm) fn change_kind(
        &self,
        space: SpaceAt,
        range: VpnRange,
        becomes: impl Fn(Vpn) -> Option<TableKind>,
    ) -> Vec<VpnRange> {
        self.leave_and(space, range, |group| {
            group.kind = group.only().and_then(|only| becomes(only.start));
        })
    }
    /// Leaves, and runs `stays` for the group of each table that stays because it is not shared.
    fn leave_and(
        &self,
        space: SpaceAt,
        range: VpnRange,
        stays: impl Fn(&mut Group),
    ) -> Vec<VpnRange> {
        if self.is_empty() {
            return Vec::new();
        }
        let goes = |m: &Member| m.space == space && m.pages().overlaps(range);
        self.change(|groups| {
            let mut left = Vec::new();
            for group in groups.iter_mut() {
                // One address space may map the file twice: its last table stays.
                while group.members.len() > 1
                    && let Some(nth) = group.members.iter().position(goes)
                {
                    left.push(group.members.remove(nth).pages());
                }
                if group.only().is_some_and(goes) {
                    stays(group);
                }
            }
            left
        })
    }
    /// Forgets the tables of the address space that lie in `range`: they go. From here on no other
    /// address space enters pages there.
    pub(in crate::mm) fn forget(&self, space: SpaceAt, range: VpnRange) {
        if self.is_empty() {
            return;
        }
        let goes = |m: &Member| m.space == space && range.covers(m.pages());
        self.change(|groups| {
            groups
                .iter_mut()
                .for_each(|group| group.members.retain(|m| !goes(m)));
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
