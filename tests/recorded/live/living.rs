//! The processes of a script under construction.

use super::draw::pick;
use emmu::{host::MAX_PROCESSES, replay::Op};
use std::collections::BTreeSet;

/// The processes that live by then, and the number of the next one.
pub struct Living {
    all: BTreeSet<u32>,
    next: u32,
}

impl Living {
    /// The first process alone.
    pub fn new() -> Self {
        Self {
            all: BTreeSet::from([0]),
            next: 1,
        }
    }
    pub fn all(&self) -> Vec<u32> {
        self.all.iter().copied().collect()
    }
    /// The process that a draw names; the first one more often than others.
    pub fn actor(&self, who: u32) -> u32 {
        pick(&self.all(), (who as usize).saturating_sub(2))
    }
    /// The fork of a new process, if a script may have one more.
    pub fn fork(&mut self) -> Option<Op> {
        let child = self.next;
        if child == MAX_PROCESSES {
            return None;
        }
        self.next += 1;
        self.all.insert(child);
        Some(Op::Fork { child })
    }
    /// The last process and its end, if it is not the first one.
    pub fn exit(&mut self) -> Option<(u32, Op)> {
        let last = *self.all.last().filter(|&&last| last != 0)?;
        self.all.remove(&last);
        Some((last, Op::Exit {}))
    }
}
