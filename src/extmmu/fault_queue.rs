//! The page faults of a device: threads work them off, and each is answered once.

use crate::sync::{Condvar, Mutex};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A page fault of a device, or a group of them that has one answer.
pub(super) trait DeviceFault {
    /// Tells the faults of one queue apart.
    type Id: Copy + Ord;
    /// The user of the device that has raised the fault, which can end before the device does.
    type User: Copy + Eq;
    /// The answer.
    type Answer: Copy;

    fn id(&self) -> Self::Id;
    fn user(&self) -> Self::User;
    /// Returns the answer once the user has ended.
    fn gone(&self) -> Self::Answer;
}

/// Counts of faults.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) raised: u64,
    pub(super) answered: u64,
    /// Answers to faults that wait for none.
    pub(super) stray: u64,
}

struct State<F: DeviceFault> {
    ready: VecDeque<F>,
    serving: Vec<(F::Id, F::User)>,
    /// The faults that wait for an answer.
    waiting: BTreeSet<F::Id>,
    answers: BTreeMap<F::Id, F::Answer>,
    counts: Counts,
}

/// The page faults of one device.
pub(super) struct FaultQueue<F: DeviceFault> {
    /// Each answer is given a second time, for the mistake.
    answers_twice: bool,
    state: Mutex<State<F>>,
    /// An answer was given, or a fault became ready.
    moved: Condvar,
}

impl<F: DeviceFault> State<F> {
    fn answer(&mut self, id: F::Id, answer: F::Answer) {
        if self.waiting.remove(&id) {
            self.answers.insert(id, answer);
            self.counts.answered += 1;
        } else {
            self.counts.stray += 1;
        }
    }
}

impl<F: DeviceFault> FaultQueue<F> {
    pub(super) fn new(answers_twice: bool) -> Self {
        Self {
            answers_twice,
            state: Mutex::new(State {
                ready: VecDeque::new(),
                serving: Vec::new(),
                waiting: BTreeSet::new(),
                answers: BTreeMap::new(),
                counts: Counts::default(),
            }),
            moved: Condvar::new(),
        }
    }
    pub(super) fn counts(&self) -> Counts {
        self.state.lock().counts
    }
    /// Returns the room that the faults take which are ready to be served.
    pub(super) fn ready(&self, size: impl Fn(&F) -> usize) -> usize {
        self.state.lock().ready.iter().map(size).sum()
    }
    /// Counts a fault that waits for its answer from now on.
    pub(super) fn expect(&self, id: F::Id) {
        let mut state = self.state.lock();
        state.waiting.insert(id);
        state.counts.raised += 1;
    }
    /// Makes a fault that is [expected](Self::expect) ready to be served.
    pub(super) fn push(&self, fault: F) {
        self.state.lock().ready.push_back(fault);
        self.moved.notify_all();
    }
    /// Answers a fault that is expected, and was not taken.
    pub(super) fn answer_unserved(&self, id: F::Id, answer: F::Answer) {
        self.state.lock().answer(id, answer);
        self.moved.notify_all();
    }
    /// Takes a fault to serve it; [`answer`](Self::answer) ends that.
    pub(super) fn take(&self) -> Option<F> {
        let mut state = self.state.lock();
        let fault = state.ready.pop_front()?;
        state.serving.push((fault.id(), fault.user()));
        Some(fault)
    }
    pub(super) fn answer(&self, id: F::Id, answer: F::Answer) {
        let mut state = self.state.lock();
        state.serving.retain(|(serving, _)| *serving != id);
        state.answer(id, answer);
        if self.answers_twice {
            state.answer(id, answer);
        }
        drop(state);
        self.moved.notify_all();
    }
    /// Returns the answer to a fault. Meanwhile `serve` serves those that are ready; this sleeps
    /// while none is.
    pub(super) fn wait(&self, id: F::Id, mut serve: impl FnMut()) -> F::Answer {
        let mut state = self.state.lock();
        loop {
            if let Some(answer) = state.answers.remove(&id) {
                return answer;
            }
            if state.ready.is_empty() {
                self.moved.wait(&mut state);
            } else {
                drop(state);
                serve();
                state = self.state.lock();
            }
        }
    }
    /// Returns the answer to a fault if it was given, once.
    pub(super) fn answer_to(&self, id: F::Id) -> Option<F::Answer> {
        self.state.lock().answers.remove(&id)
    }
    /// Answers the faults of a user that has ended, and waits for those that are being served. The
    /// user raises no more.
    pub(super) fn drain(&self, user: F::User) {
        let mut state = self.state.lock();
        let ready = std::mem::take(&mut state.ready).into_iter();
        let (gone, kept): (Vec<F>, Vec<F>) = ready.partition(|fault| fault.user() == user);
        state.ready = VecDeque::from(kept);
        for fault in gone {
            state.answer(fault.id(), fault.gone());
        }
        self.moved.notify_all();
        while state.serving.iter().any(|(_, of)| *of == user) {
            self.moved.wait(&mut state);
        }
    }
}
