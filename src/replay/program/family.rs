//! Threads, the address spaces that they share, and their descriptors.

use super::files::Descriptors;
use crate::{
    ctx::CallCx,
    mm::Mm,
    replay::limits::{ReplayLimits, beyond},
};
use std::{collections::BTreeMap, sync::Arc};

/// The index of an address space in a family.
pub(super) type SpaceId = usize;

/// A thread.
#[derive(Clone, Copy, Debug)]
pub(super) struct Task {
    /// The process.
    pub(super) pid: u32,
    /// The address space; `None`: a program without a recorded initial layout.
    pub(super) space: Option<SpaceId>,
    /// The table of descriptors.
    pub(super) table: usize,
}

#[derive(Debug)]
struct Space {
    mm: Arc<Mm>,
    users: usize,
    /// True if the heap's beginning is known.
    has_heap: bool,
    /// The address spaces that this one descends from by forks, itself included.
    line: usize,
}

impl Space {
    /// Returns the mappings, each counted once for each address space that may share its pages: so
    /// many entries the reverse maps have of it at most.
    fn mappings(&self, cx: &mut CallCx<'_>) -> usize {
        self.mm.map_count(cx).saturating_mul(self.line)
    }
}

/// A table of descriptors.
#[derive(Debug, Default)]
struct Table {
    open: Descriptors,
    users: usize,
}

/// All threads of a recording.
#[derive(Debug, Default)]
pub(super) struct Family {
    tasks: BTreeMap<u32, Task>,
    /// The address spaces with threads.
    spaces: BTreeMap<SpaceId, Space>,
    next_space: SpaceId,
    /// The tables of living threads.
    tables: BTreeMap<usize, Table>,
    next_table: usize,
}

impl Family {
    pub(super) fn task(&self, tid: u32) -> Option<Task> {
        self.tasks.get(&tid).copied()
    }
    pub(super) fn mm(&self, space: SpaceId) -> Option<&Arc<Mm>> {
        self.spaces.get(&space).map(|s| &s.mm)
    }
    pub(super) fn space_of(&self, tid: u32) -> Option<SpaceId> {
        self.task(tid)?.space
    }
    pub(super) fn descriptors(&mut self, table: usize) -> &mut Descriptors {
        &mut self.tables.entry(table).or_default().open
    }
    /// Returns the limit that a new child of `parent` would meet.
    pub(super) fn limit_met(
        &self,
        cx: &mut CallCx<'_>,
        parent: Task,
        (vm, files): (bool, bool),
        limits: &ReplayLimits,
    ) -> Option<String> {
        let most = limits.processes;
        if !vm && self.spaces.len() >= most || !files && self.tables.len() >= most {
            return Some(beyond(most, "processes"));
        }
        if let Some(space) = parent.space.filter(|_| !vm) {
            let all: usize = self.spaces.values().map(|s| s.mappings(cx)).sum();
            let space = self.spaces.get(&space)?;
            let more = space.mappings(cx) + space.mm.map_count(cx);
            if all.saturating_add(more) > limits.mappings {
                return Some(beyond(limits.mappings, "mappings"));
            }
        }
        let copied = self.tables.get(&parent.table).filter(|_| !files)?;
        let all: usize = self.tables.values().map(|t| t.open.len()).sum();
        let met = all + copied.open.len() > limits.descriptors;
        met.then(|| beyond(limits.descriptors, "descriptors"))
    }
    /// Returns true if the heap's beginning is known.
    pub(super) fn knows_heap(&self, space: SpaceId) -> bool {
        self.spaces.get(&space).is_none_or(|s| s.has_heap)
    }
    /// Notes that the heap's beginning is known; returns true if it was known before.
    pub(super) fn know_heap(&mut self, space: SpaceId) -> bool {
        let space = self.spaces.get_mut(&space);
        space.is_none_or(|s| std::mem::replace(&mut s.has_heap, true))
    }
    /// Adds the first thread of the first process, before its `execve`.
    pub(super) fn begin(&mut self, tid: u32) {
        let table = self.add_table(Descriptors::default());
        self.tasks.insert(
            tid,
            Task {
                pid: tid,
                space: None,
                table,
            },
        );
    }
    fn add_table(&mut self, open: Descriptors) -> usize {
        let table = self.next_table;
        self.next_table += 1;
        self.tables.insert(table, Table { open, users: 1 });
        table
    }
    /// Adds an address space without threads.
    pub(super) fn add_space(&mut self, mm: Arc<Mm>, like: Option<SpaceId>) -> SpaceId {
        let like = like.and_then(|id| self.spaces.get(&id));
        let has_heap = like.is_some_and(|s| s.has_heap);
        let line = 1 + like.map_or(0, |s| s.line);
        let id = self.next_space;
        self.next_space += 1;
        let space = Space {
            mm,
            users: 0,
            has_heap,
            line,
        };
        self.spaces.insert(id, space);
        id
    }
    /// Adds a thread to its parent's process, or to one of its own.
    pub(super) fn clone_task(
        &mut self,
        child: u32,
        parent: Task,
        space: Option<SpaceId>,
        (thread, files): (bool, bool),
    ) {
        let table = if files {
            self.tables.entry(parent.table).or_default().users += 1;
            parent.table
        } else {
            let copy = self.descriptors(parent.table).clone();
            self.add_table(copy)
        };
        let pid = if thread { parent.pid } else { child };
        self.tasks.insert(
            child,
            Task {
                pid,
                space: None,
                table,
            },
        );
        let _had_none = self.move_to(child, space);
    }
    /// Puts a thread into another address space, or into none; returns the old address space if
    /// that is empty now.
    pub(super) fn move_to(&mut self, tid: u32, space: Option<SpaceId>) -> Option<Arc<Mm>> {
        if let Some(new) = space.and_then(|id| self.spaces.get_mut(&id)) {
            new.users += 1;
        }
        let task = self.tasks.get_mut(&tid)?;
        let old = std::mem::replace(&mut task.space, space)?;
        self.leave(old)
    }
    /// Ends a thread; returns its address space if that is empty now.
    pub(super) fn end(&mut self, tid: u32) -> Option<Arc<Mm>> {
        let task = self.tasks.remove(&tid)?;
        if let Some(table) = self.tables.get_mut(&task.table) {
            table.users -= 1;
            if table.users == 0 {
                self.tables.remove(&task.table);
            }
        }
        self.leave(task.space?)
    }
    fn leave(&mut self, id: SpaceId) -> Option<Arc<Mm>> {
        let space = self.spaces.get_mut(&id)?;
        space.users -= 1;
        if space.users > 0 {
            return None;
        }
        self.spaces.remove(&id).map(|space| space.mm)
    }
    /// Returns the other threads of a process.
    pub(super) fn others(&self, pid: u32, tid: u32) -> Vec<u32> {
        let mine = self
            .tasks
            .iter()
            .filter(|(t, k)| k.pid == pid && **t != tid);
        mine.map(|(t, _)| *t).collect()
    }
    /// Returns every living thread.
    pub(super) fn tids(&self) -> Vec<u32> {
        self.tasks.keys().copied().collect()
    }
}
