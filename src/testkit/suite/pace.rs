//! [`Pace`]: the progress of the threads that use the devices next to a script.

use crate::sync::{AtomicBool, AtomicU64, Condvar, Mutex, Ordering};

/// The progress of the threads that use the devices.
///
/// No thread has a claim on processor time, so the script waits for them now and then: they use the
/// devices in every run, however busy the machine is.
#[derive(Debug)]
pub(super) struct Pace {
    /// Tells the threads to end.
    pub(super) stop: AtomicBool,
    /// Number of times that the script has waited for them.
    pub(super) asked: AtomicU64,
    /// The wait that each thread has completed last.
    reached: Mutex<Vec<u64>>,
    changed: Condvar,
}

impl Pace {
    /// Rounds that each thread makes in one wait: it reads and writes every device in each.
    pub(super) const ROUNDS: u64 = 4;

    /// Returns the pace of a number of threads, none of which has begun.
    pub(super) fn new(threads: u32) -> Self {
        Self {
            stop: AtomicBool::new(false),
            asked: AtomicU64::new(0),
            reached: Mutex::new(vec![0; threads as usize]),
            changed: Condvar::new(),
        }
    }
    /// Tells the threads to end.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
    /// Waits until each thread has made its rounds from now on, or has ended.
    pub(super) fn wait(&self) {
        let asked = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
        let mut reached = self.reached.lock();
        while reached.iter().any(|at| *at < asked) {
            self.changed.wait(&mut reached);
        }
    }
    /// Notes that thread `lane` has made the rounds of wait number `asked`.
    pub(super) fn reaches(&self, lane: u64, asked: u64) {
        self.reached.lock()[lane as usize] = asked;
        self.changed.notify_all();
    }
}
