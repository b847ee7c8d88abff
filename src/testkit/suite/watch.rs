//! The watch over the cases of a suite: a case that hangs is a verdict, with the steps that led
//! there.

use super::{
    beat::Beat,
    case::{Case, Ran},
    config::Suite,
};
use crate::testkit::{Seen, patience, timed_thread::message};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        mpsc::{RecvTimeoutError, channel},
    },
};

impl Suite {
    /// Runs a case on a thread of its own, which leaks if the case hangs.
    pub(super) fn ran(&self, case: &Case, look: bool) -> Ran {
        let beat = Arc::new(Beat::default());
        let (tell, told) = channel();
        let (suite, one, shared) = (self.clone(), case.clone(), Arc::clone(&beat));
        let _detached = std::thread::spawn(move || {
            let run = AssertUnwindSafe(|| suite.ran_here(&one, look, &shared));
            let _receiver_gone = tell.send(catch_unwind(run));
        });
        let mut before = beat.count();
        loop {
            match patience::receive(&told, self.deadline) {
                Ok(Ok(ran)) => return ran,
                // A panic outside of the case, while its world was dropped.
                Ok(Err(payload)) => return beat.ended(case, Seen::Panicked(message(&*payload))),
                Err(RecvTimeoutError::Disconnected) => unreachable!("what it sends is sent"),
                Err(RecvTimeoutError::Timeout) => {
                    // A case that still moves on is no hang.
                    let now = beat.count();
                    if now == before {
                        return beat.stuck(case, self.deadline);
                    }
                    before = now;
                }
            }
        }
    }
}
