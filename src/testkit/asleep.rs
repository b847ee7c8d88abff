//! Threads that sleep, as the system shows them: no clock decides.
//!
//! Linux shows the state of each thread, and how often the thread has gone to sleep. A thread that
//! sleeps in each of many looks, and has not gone to sleep anew between them, waits for something
//! that does not come while the looking thread does nothing else.

use std::{fs, path::PathBuf};

/// Looks in a row that must find a thread in the same sleep. The looking thread gives up the
/// processor between them, so that a thread which is about to wake the other one gets it.
const LOOKS: u32 = 16;

/// A thread of this process.
#[derive(Debug)]
pub(super) struct ObservedThread {
    status: PathBuf,
    /// The sleep in which the last looks found the thread, and their number.
    asleep: Option<(u64, u32)>,
}

impl ObservedThread {
    /// Returns this thread; `None` if the system does not show threads.
    pub(super) fn current() -> Option<Self> {
        let thread = fs::read_link("/proc/thread-self").ok()?;
        let status = PathBuf::from("/proc").join(thread).join("status");
        sleep_in(&fs::read_to_string(&status).ok()?)?;
        Some(Self {
            status,
            asleep: None,
        })
    }
    /// Looks at the thread, and returns true if the last looks have all found it in the same sleep,
    /// or if it has ended.
    pub(super) fn stays_asleep(&mut self) -> bool {
        let Ok(text) = fs::read_to_string(&self.status) else {
            return true;
        };
        self.asleep = match (sleep_in(&text), self.asleep) {
            (Some(Some(now)), Some((before, looks))) if now == before => Some((now, looks + 1)),
            (Some(Some(now)), _) => Some((now, 1)),
            _ => None,
        };
        self.asleep.is_some_and(|(_, looks)| looks >= LOOKS)
    }
}

/// Returns the number of the sleep in which a thread of this status is, `Some(None)` if it does not
/// sleep, and `None` if the status does not say so.
#[allow(clippy::option_option, reason = "two questions: said at all, asleep")]
fn sleep_in(status: &str) -> Option<Option<u64>> {
    let field = |name: &str| {
        let mut values = status.lines().filter_map(|line| line.strip_prefix(name));
        values.next().map(str::trim)
    };
    let sleeps = field("voluntary_ctxt_switches:")?.parse().ok()?;
    Some(field("State:")?.starts_with('S').then_some(sleeps))
}

#[cfg(all(test, not(any(loom, shuttle, miri))))]
mod tests {
    use super::{ObservedThread, sleep_in};
    use std::sync::mpsc::channel;

    #[test]
    fn the_status_of_a_thread_is_read() {
        let status = |state| format!("Name:\tx\nState:\t{state}\nvoluntary_ctxt_switches:\t7\n");
        assert_eq!(sleep_in(&status("S (sleeping)")), Some(Some(7)));
        assert_eq!(sleep_in(&status("R (running)")), Some(None));
        assert_eq!(sleep_in("State:\tS (sleeping)\n"), None);
    }

    #[test]
    fn a_thread_that_waits_is_asleep_and_one_that_runs_is_not() {
        let (tell, told) = channel();
        let (go, goes) = channel::<()>();
        let thread = std::thread::spawn(move || {
            tell.send(ObservedThread::current()).unwrap();
            goes.recv().unwrap();
        });
        let own = ObservedThread::current();
        let other = told.recv().unwrap();
        assert_eq!(own.is_some(), other.is_some());
        if let (Some(mut own), Some(mut other)) = (own, other) {
            while !other.stays_asleep() {
                assert!(!own.stays_asleep(), "this thread runs");
            }
        }
        go.send(()).unwrap();
        thread.join().unwrap();
    }
}
