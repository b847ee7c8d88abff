//! The processes of a script under construction.

use super::draw::pick;
use emmu::{host::MAX_PROCESSES, replay::Op};
use std::collections::{BTreeMap, BTreeSet};

/// The processes that live by then, their threads besides the first ones, and the number of the
/// next one.
pub struct Living {
    all: BTreeSet<u32>,
    threads: BTreeMap<u32, u32>,
    next: u32,
}

impl Living {
    /// The first process alone.
    pub fn new() -> Self {
        Self {
            all: BTreeSet::from([0]),
            threads: BTreeMap::new(),
            next: 1,
        }
    }
    pub fn all(&self) -> Vec<u32> {
        self.all.iter().copied().collect()
    }
    /// The process that a draw names; the first one more often than others.
    pub fn actor(&self, who: u32) -> u32 {
        let mut actors = self.all();
        actors.extend(self.threads.keys());
        pick(&actors, (who as usize).saturating_sub(2))
    }
    /// The process of an actor.
    pub fn process_of(&self, actor: u32) -> u32 {
        self.threads.get(&actor).copied().unwrap_or(actor)
    }
    /// A new thread of the process of an actor, if a script may have one more.
    pub fn thread(&mut self, actor: u32) -> Option<Op> {
        let process = self.process_of(actor);
        let thread = self.number()?;
        self.threads.insert(thread, process);
        Some(Op::Thread { thread })
    }
    /// The number of one more process or thread.
    fn number(&mut self) -> Option<u32> {
        let number = self.next;
        (number < MAX_PROCESSES).then(|| {
            self.next += 1;
            number
        })
    }
    /// The fork of a new process, if a script may have one more.
    pub fn fork(&mut self) -> Option<Op> {
        let child = self.number()?;
        self.all.insert(child);
        Some(Op::Fork { child })
    }
    /// The last process and its end, if it is not the first one.
    pub fn exit(&mut self) -> Option<(u32, Op)> {
        Some((self.end_last()?, Op::Exit {}))
    }
    /// The end of the last process, which the first one kills.
    pub fn kill(&mut self) -> Option<(u32, Op)> {
        let target = self.end_last()?;
        Some((0, Op::ExitAndReap { target }))
    }
    fn end_last(&mut self) -> Option<u32> {
        let last = *self.all.last().filter(|&&last| last != 0)?;
        self.all.remove(&last);
        self.threads.retain(|_, process| *process != last);
        Some(last)
    }
}
