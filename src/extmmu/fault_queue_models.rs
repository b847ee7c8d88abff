//! Loom models of a queue of page faults: each fault is answered once, also if its user ends, and
//! none is served after that.

use super::fault_queue::{DeviceFault, FaultQueue};
use crate::{
    notifier::models::run,
    sync::{AtomicBool, Ordering},
};
use std::sync::Arc;

/// A fault of the only user, with a number.
struct Fault(u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Served,
    Gone,
}

impl DeviceFault for Fault {
    type Id = u64;
    type User = ();
    type Answer = Answer;

    fn id(&self) -> u64 {
        self.0
    }
    fn user(&self) {}
    fn gone(&self) -> Answer {
        Answer::Gone
    }
}

fn serve(queue: &FaultQueue<Fault>, meanwhile: impl FnOnce()) {
    if let Some(fault) = queue.take() {
        meanwhile();
        queue.answer(fault.0, Answer::Served);
    }
}

fn raise(queue: &FaultQueue<Fault>, number: u64) {
    queue.expect(number);
    queue.push(Fault(number));
}

/// A user ends while a thread serves. The mistake: the user's memory goes before its faults are
/// drained.
fn drain_against_serving(mistake: bool) {
    let queue = Arc::new(FaultQueue::new(false));
    let ended = Arc::new(AtomicBool::new(false));
    raise(&queue, 0);
    let (q, e) = (Arc::clone(&queue), Arc::clone(&ended));
    let other = loom::thread::spawn(move || {
        serve(&q, || {
            assert!(!e.load(Ordering::SeqCst), "served after the end");
        });
    });
    ended.store(mistake, Ordering::SeqCst);
    queue.drain(());
    ended.store(true, Ordering::SeqCst);
    let answers = (queue.answer_to(0).is_some(), queue.answer_to(0).is_some());
    assert_eq!(answers, (true, false), "answered once");
    other.join().unwrap();
    let counts = queue.counts();
    assert_eq!((counts.answered, counts.stray), (1, 0), "{counts:?}");
}

/// Two threads wait, each for its own fault, and serve meanwhile. A lost wake-up would be a
/// deadlock, which loom finds. The mistake: answers are given twice.
fn two_wait(answers_twice: bool) {
    let queue = Arc::new(FaultQueue::new(answers_twice));
    let wait = |queue: &FaultQueue<Fault>, number| {
        raise(queue, number);
        let answer = queue.wait(number, || serve(queue, || ()));
        assert_eq!(answer, Answer::Served);
    };
    let q = Arc::clone(&queue);
    let other = loom::thread::spawn(move || wait(&q, 1));
    wait(&queue, 0);
    other.join().unwrap();
    let counts = queue.counts();
    let each = (counts.raised, counts.answered, counts.stray);
    assert_eq!(each, (2, 2, 0), "answered once");
}

#[test]
fn fault_drained() {
    run::holds("fault_drained", || drain_against_serving(false));
}
#[test]
fn fault_served_after_the_end() {
    run::fails("fault_served_after_the_end", "served after the end", || {
        drain_against_serving(true);
    });
}
#[test]
fn fault_waits() {
    run::holds("fault_waits", || two_wait(false));
}
#[test]
fn fault_answered_twice() {
    run::fails("fault_answered_twice", "answered once", || two_wait(true));
}
