//! The trial of a device: all properties in one call, one property, or one test for each.

use super::{
    Property, Suite,
    device::Device,
    kit::Kit,
    log::Log,
    patience,
    timed_thread::message,
    trial::{Abort, Trial, machine},
    verdict::{Conformance, PropertyOutcome, Seen, Verdict},
};
use crate::{
    addr::PAGE_SIZE,
    ctx::CallCx,
    notifier::{ExternalMmu, Seat},
};
use std::{
    io::Write,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        mpsc::{RecvTimeoutError, channel},
    },
    time::Instant,
};

/// Checks every property of an external MMU, with the defaults of [`Kit`].
pub fn conformance<D: Device + ExternalMmu + 'static>(
    build: impl Fn(Seat) -> Arc<D> + Send + Sync + 'static,
) -> Conformance {
    Kit::new(build).run()
}

impl Kit {
    /// Returns a suite of random scripts for this device alone.
    pub(super) fn suite(&self) -> Suite {
        let suite = Suite::new([self.clone()]).cases(self.cases);
        let suite = match self.seed {
            Some(seed) => suite.seed(seed),
            None => suite,
        };
        match &self.regressions {
            Some(folder) => suite.regressions(folder),
            None => suite,
        }
    }
    /// Checks every property.
    pub fn run(&self) -> Conformance {
        let verdicts = Property::ALL.iter().map(|p| self.check(*p));
        Conformance {
            verdicts: verdicts.collect(),
        }
    }
    /// Checks one property, on a machine and on threads of its own.
    ///
    /// The call returns even if the device hangs; the machine and the threads of that check then
    /// leak.
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::{extmmu::gru::GruConfig, testkit::{Property, gru}};
    ///
    /// let kit = gru(GruConfig::default(), None);
    /// let verdict = kit.check(Property::HoldsOff);
    /// assert!(!verdict.is_failed(), "{verdict}");
    /// ```
    pub fn check(&self, property: Property) -> Verdict {
        let began = Instant::now();
        let log = Arc::new(Log::default());
        let (tell, told) = channel();
        let (kit, shared) = (self.clone(), Arc::clone(&log));
        let _detached = std::thread::spawn(move || {
            let run = AssertUnwindSafe(|| kit.on_trial(property, &shared));
            let came = catch_unwind(run).unwrap_or_else(|payload| {
                shared.see(Seen::Panicked(message(&*payload)));
                None
            });
            let _receiver_gone = tell.send(came);
        });
        let mut done = 0;
        let skipped = loop {
            match patience::receive(&told, self.deadline * 2) {
                Ok(skipped) => break skipped,
                Err(RecvTimeoutError::Disconnected) => break None,
                // A log that still grows is no hang.
                Err(RecvTimeoutError::Timeout) if log.len() > done && !log.has_seen() => {
                    done = log.len();
                }
                Err(RecvTimeoutError::Timeout) => {
                    if !log.has_seen() {
                        log.see(Seen::Stuck {
                            what: format!("the step after \"{}\"", log.last()),
                            after: self.deadline * 2,
                        });
                    }
                    break None;
                }
            }
        };
        patience::until(self.patience(), || !log.lacks_the_cause());
        let (steps, seen) = log.take();
        let outcome = match (skipped, seen.is_empty()) {
            (_, false) => PropertyOutcome::Failed(seen),
            (Some(why), true) => PropertyOutcome::Skipped(why),
            (None, true) => PropertyOutcome::Passed,
        };
        Verdict {
            property,
            outcome,
            steps,
            time: began.elapsed(),
        }
    }
    /// Checks one property as a test does, and prints the reason on standard error if the check is
    /// skipped.
    ///
    /// # Panics
    ///
    /// Panics with the report if the property fails.
    #[track_caller]
    pub fn assert(&self, property: Property) {
        let verdict = self.check(property);
        assert!(!verdict.is_failed(), "\n{verdict}");
        match verdict.outcome {
            // A harness hides the output of a test that passes; a direct write stays visible.
            PropertyOutcome::Skipped(why) => {
                let here = std::thread::current();
                let test = here.name().unwrap_or(property.name());
                let line = format!("skipped: {test}: {why}\n");
                let _closed = std::io::stderr().write_all(line.as_bytes());
            }
            _ => println!("{verdict}"),
        }
    }

    /// Runs the check on this thread and returns the reason if the property is skipped.
    fn on_trial(&self, property: Property, log: &Arc<Log>) -> Option<&'static str> {
        let machine = machine();
        let mut thread = machine.enter().expect("a thread of its own");
        let mut cx = thread.cx();
        let trial = Trial::new(&mut cx, machine, &*self.attach, log, self.deadline);
        if let Some(why) = property.needs(&trial.device.declares()) {
            trial.mm.exit(&mut cx);
            return Some(why);
        }
        let run = AssertUnwindSafe(|| property.run(&trial, &mut cx, self));
        let came = catch_unwind(run);
        trial.listen();
        match came {
            Ok(Ok(())) if !log.has_seen() => trial.end(&mut cx),
            // A final audit would report the known violation again.
            Ok(Ok(())) => trial.mm.exit(&mut cx),
            // A stuck or poisoned device could block every destructor: leak the trial.
            Ok(Err(Abort)) => std::mem::forget(trial),
            Err(payload) => {
                trial.see(Seen::Panicked(message(&*payload)));
                std::mem::forget(trial);
            }
        }
        None
    }
}

impl Trial {
    /// Ends the address space and checks that no entry, frame or counter is left.
    fn end(&self, cx: &mut CallCx<'_>) {
        self.audit();
        if let Some(what) = self.device.unsettled() {
            self.see(Seen::Unsettled(what));
        }
        self.process("exit");
        self.mm.exit(cx);
        self.oracle.audit_end(&self.mm);
        let kept = self.machine.mem().in_use();
        if kept > 0 {
            self.process(format!(
                "{} bytes of frames are left",
                u64::from(kept) * PAGE_SIZE
            ));
        }
        self.oracle.audit_empty(cx, 0);
        self.listen();
    }
}

/// Defines one `#[test]` for each [`Property`](crate::testkit::Property), for an external MMU that
/// needs nothing but its seat, or for a [`Kit`](crate::testkit::Kit).
///
/// ```rs
/// emmu::conformance_tests!(MyMmu::new);
/// mod with_preload {
///     emmu::conformance_tests!(kit = Kit::new(|seat| MyMmu::with_preload(seat, 4)));
/// }
/// ```
#[macro_export]
macro_rules! conformance_tests {
    (kit = $kit:expr) => {
        $crate::conformance_tests!(@ $kit;
            auditable pairing drops_range holds_off retry reuse overlap reach edges bytes huge_pages pool_pages userfaults
            foreign_threads forks
            rights aging dirty references atomics dirty_log pins mappings reentrant atomic_windows page_faults
            subscriptions displaced alloc_failure progress exits release unregister failures scripts);
    };
    (@ $kit:expr; $($name:ident)*) => { $(
        #[test]
        fn $name() {
            let property = $crate::testkit::Property::named(stringify!($name));
            $kit.assert(property.expect("a property of that name"));
        }
    )* };
    ($build:expr) => {
        $crate::conformance_tests!(kit = $crate::testkit::Kit::new($build));
    };
}
