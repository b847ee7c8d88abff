//! Threads, the address spaces that they share, and their descriptors.

use super::files::Descriptors;
use crate::mm::Mm;
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
}

/// All threads of a recording.
#[derive(Debug, Default)]
pub(super) struct Family {
    tasks: BTreeMap<u32, Task>,
    spaces: Vec<Option<Space>>,
    /// The number of living threads.
    alive: usize,
    tables: Vec<Descriptors>,
}

impl Family {
    pub(super) fn task(&self, tid: u32) -> Option<Task> {
        self.tasks.get(&tid).copied()
    }
    pub(super) fn mm(&self, space: SpaceId) -> Option<&Arc<Mm>> {
        self.spaces.get(space)?.as_ref().map(|s| &s.mm)
    }
    pub(super) fn space_of(&self, tid: u32) -> Option<SpaceId> {
        self.task(tid)?.space
    }
    pub(super) fn descriptors(&mut self, table: usize) -> &mut Descriptors {
        if self.tables.len() <= table {
            self.tables.resize_with(table + 1, Descriptors::default);
        }
        &mut self.tables[table]
    }
    /// Returns the number of address spaces with threads.
    pub(super) fn spaces(&self) -> usize {
        self.alive
    }
    /// Returns true if the heap's beginning is known.
    pub(super) fn knows_heap(&self, space: SpaceId) -> bool {
        let space = self.spaces.get(space).and_then(Option::as_ref);
        space.is_none_or(|s| s.has_heap)
    }
    /// Notes that the heap's beginning is known; returns true if it was known before.
    pub(super) fn know_heap(&mut self, space: SpaceId) -> bool {
        let space = self.spaces.get_mut(space).and_then(Option::as_mut);
        space.is_none_or(|s| std::mem::replace(&mut s.has_heap, true))
    }
    /// Adds the first thread of the first process, before its `execve`.
    pub(super) fn begin(&mut self, tid: u32) {
        self.tasks.insert(
            tid,
            Task {
                pid: tid,
                space: None,
                table: 0,
            },
        );
    }
    /// Adds an address space without threads.
    pub(super) fn add_space(&mut self, mm: Arc<Mm>, like: Option<SpaceId>) -> SpaceId {
        let like = like.and_then(|id| self.spaces.get(id)?.as_ref());
        let has_heap = like.is_some_and(|s| s.has_heap);
        self.alive += 1;
        self.spaces.push(Some(Space {
            mm,
            users: 0,
            has_heap,
        }));
        self.spaces.len() - 1
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
            parent.table
        } else {
            let copy = self.descriptors(parent.table).clone();
            self.tables.push(copy);
            self.tables.len() - 1
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
        if let Some(new) = space.and_then(|id| self.spaces.get_mut(id)?.as_mut()) {
            new.users += 1;
        }
        let task = self.tasks.get_mut(&tid)?;
        let old = std::mem::replace(&mut task.space, space)?;
        self.leave(old)
    }
    /// Ends a thread; returns its address space if that is empty now.
    pub(super) fn end(&mut self, tid: u32) -> Option<Arc<Mm>> {
        let old = self.tasks.remove(&tid)?.space?;
        self.leave(old)
    }
    fn leave(&mut self, space: SpaceId) -> Option<Arc<Mm>> {
        let slot = self.spaces.get_mut(space)?;
        let users = &mut slot.as_mut()?.users;
        *users -= 1;
        if *users == 0 {
            self.alive -= 1;
            slot.take().map(|s| s.mm)
        } else {
            None
        }
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
