//! Page faults of the adapter: a queue that a thread works off, each fault answered once.

use super::mistake::OdpMistake;
use crate::{
    addr::VpnRange,
    driver::TranslateError,
    error::FaultError,
    notifier::Access,
    sync::{Condvar, Mutex},
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The number under which an adapter reaches a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub u32);

/// Counts of page faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultStats {
    /// Faults that the adapter has raised.
    pub raised: u64,
    /// Faults that were answered: the queue pair resumes, or gets an error.
    pub answered: u64,
    /// Answers to faults that wait for none.
    pub stray: u64,
}

impl FaultStats {
    /// Returns the number of faults that wait for an answer.
    pub fn waiting(&self) -> u64 {
        self.raised - self.answered
    }
}

/// A page fault: the pages that the adapter needs, and the access.
#[derive(Clone, Copy, Debug)]
pub(super) struct PageFault {
    pub(super) number: u64,
    pub(super) key: Key,
    pub(super) pages: VpnRange,
    pub(super) access: Access,
}

/// The answer: resume, or the error.
pub(super) type Answer = Result<(), TranslateError>;

#[derive(Debug, Default)]
struct State {
    ready: VecDeque<PageFault>,
    /// Faults that are being served, with their key.
    serving: Vec<(u64, Key)>,
    waiting: BTreeSet<u64>,
    answers: BTreeMap<u64, Answer>,
    stats: FaultStats,
}

/// The work queue of one adapter.
#[derive(Debug)]
pub(super) struct Faults {
    mistake: Option<OdpMistake>,
    state: Mutex<State>,
    moved: Condvar,
}

impl State {
    fn answer(&mut self, number: u64, answer: Answer) {
        if self.waiting.remove(&number) {
            self.answers.insert(number, answer);
            self.stats.answered += 1;
        } else {
            self.stats.stray += 1;
        }
    }
}

impl Faults {
    pub(super) fn new(mistake: Option<OdpMistake>) -> Self {
        Self {
            mistake,
            state: Mutex::default(),
            moved: Condvar::new(),
        }
    }
    pub(super) fn stats(&self) -> FaultStats {
        self.state.lock().stats
    }
    /// Raises a fault, and returns its number.
    pub(super) fn raise(&self, key: Key, pages: VpnRange, access: Access) -> u64 {
        let mut state = self.state.lock();
        let number = state.stats.raised;
        state.stats.raised += 1;
        state.waiting.insert(number);
        state.ready.push_back(PageFault {
            number,
            key,
            pages,
            access,
        });
        drop(state);
        self.moved.notify_all();
        number
    }
    /// Takes a fault to serve it; [`answer`](Self::answer) ends that.
    pub(super) fn take(&self) -> Option<PageFault> {
        let mut state = self.state.lock();
        let fault = state.ready.pop_front()?;
        state.serving.push((fault.number, fault.key));
        Some(fault)
    }
    pub(super) fn answer(&self, number: u64, answer: Answer) {
        let mut state = self.state.lock();
        state.serving.retain(|(serving, _)| *serving != number);
        state.answer(number, answer);
        if self.mistake == Some(OdpMistake::AnswersTwice) {
            state.answer(number, answer);
        }
        drop(state);
        self.moved.notify_all();
    }
    /// Returns the answer to a fault, or `None` if one is ready to be served; sleeps until either
    /// is there.
    pub(super) fn wait(&self, number: u64) -> Option<Answer> {
        let mut state = self.state.lock();
        loop {
            if let Some(answer) = state.answers.remove(&number) {
                return Some(answer);
            }
            if !state.ready.is_empty() {
                return None;
            }
            self.moved.wait(&mut state);
        }
    }
    /// Returns the answer to a fault if it was given.
    pub(super) fn answer_to(&self, number: u64) -> Option<Answer> {
        self.state.lock().answers.remove(&number)
    }
    /// Answers the faults of a key with an error, and waits for those that are being served.
    pub(super) fn drain(&self, key: Key) {
        let mut state = self.state.lock();
        let ready = std::mem::take(&mut state.ready).into_iter();
        let (gone, kept): (Vec<_>, Vec<_>) = ready.partition(|fault| fault.key == key);
        state.ready = VecDeque::from(kept);
        for fault in gone {
            let why = FaultError::NotMapped(fault.pages.start().addr());
            state.answer(fault.number, Err(why.into()));
        }
        self.moved.notify_all();
        while state.serving.iter().any(|(_, of)| *of == key) {
            self.moved.wait(&mut state);
        }
    }
}
