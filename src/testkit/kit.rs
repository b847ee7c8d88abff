//! The trial of a device, property by property.

use super::{
    Property, Suite,
    aside::message,
    device::{Attached, Device},
    log::Log,
    patience, suite,
    trial::{Abort, Attach, Trial, machine},
    verdict::{Conformance, Outcome, Seen, Verdict},
};
use crate::ctx::CallCx;
use crate::{
    addr::PAGE_SIZE,
    mm::Mm,
    notifier::{ExternalMmu, Seat},
};
use std::{
    fmt,
    io::Write,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{RecvTimeoutError, channel},
    },
    time::{Duration, Instant},
};

/// A way to build a device, and how much time and work its trial may take.
#[derive(Clone)]
pub struct Kit {
    attach: Arc<Attach>,
    deadline: Duration,
    cases: u32,
    regressions: Option<PathBuf>,
}

/// Puts an external MMU on trial, with the defaults of [`Kit`].
pub fn conformance<D: Device + ExternalMmu + 'static>(
    build: impl Fn(Seat) -> Arc<D> + Send + Sync + 'static,
) -> Conformance {
    Kit::new(build).run()
}

impl Kit {
    /// A kit for devices that are built of their seat alone.
    pub fn new<D: Device + ExternalMmu + 'static>(
        build: impl Fn(Seat) -> Arc<D> + Send + Sync + 'static,
    ) -> Self {
        Self::attaching(move |cx, mm| {
            let (device, registration) = mm.register(cx, &build);
            Attached {
                mmu: Arc::clone(&device) as Arc<dyn ExternalMmu>,
                device,
                registration,
            }
        })
    }
    /// A kit for devices that register themselves, or have a user beside them. It is called for each property, with an
    /// address space in which they may use everything.
    pub fn attaching(
        attach: impl Fn(&mut CallCx<'_>, &Arc<Mm>) -> Attached + Send + Sync + 'static,
    ) -> Self {
        Self {
            attach: Arc::new(attach),
            deadline: Duration::from_secs(5),
            cases: suite::depth(64),
            regressions: None,
        }
    }
    /// How long an access or an operation may take before it is said to be stuck. 5 seconds, unless set.
    ///
    /// On a machine that is busy with other things the clock runs and the device does not. So when the time is over, whoever
    /// waits first works for about as long, and looks again: what could run had as much of a processor meanwhile.
    #[must_use]
    pub fn deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }
    /// Random scripts of [`Property::Scripts`]; 64, unless set. `EMMU_TESTKIT_CASES` makes it more, but not of none.
    #[must_use]
    pub fn cases(self, cases: u32) -> Self {
        let cases = suite::at_least(cases);
        Self { cases, ..self }
    }
    /// Scripts of this folder are run before the random ones of [`Property::Scripts`], and failures are saved there
    /// ([`Suite::regressions`](super::Suite::regressions)).
    #[must_use]
    pub fn regressions(self, folder: impl Into<PathBuf>) -> Self {
        let regressions = Some(folder.into());
        Self {
            regressions,
            ..self
        }
    }
    /// A suite of random scripts for the device alone.
    pub(super) fn suite(&self) -> Suite {
        let suite = Suite::new([self.clone()]).cases(self.cases);
        match &self.regressions {
            Some(folder) => suite.regressions(folder),
            None => suite,
        }
    }
    pub(super) fn patience(&self) -> Duration {
        self.deadline
    }
    /// Random scripts of [`Property::Scripts`].
    pub fn random_cases(&self) -> u32 {
        self.cases
    }
    /// Puts the device on a process.
    pub fn attach(&self, cx: &mut CallCx<'_>, mm: &Arc<Mm>) -> Attached {
        (self.attach)(cx, mm)
    }
    /// Every property.
    pub fn run(&self) -> Conformance {
        let verdicts = Property::ALL.iter().map(|p| self.check(*p));
        Conformance {
            verdicts: verdicts.collect(),
        }
    }
    /// One property, on a machine and threads of its own. A device that hangs takes them with it.
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
            let _nobody_waits = tell.send(came);
        });
        let mut done = 0;
        let skipped = loop {
            match patience::receive(&told, self.deadline * 2) {
                Ok(skipped) => break skipped,
                Err(RecvTimeoutError::Disconnected) => break None,
                // Work that goes on is no hang.
                Err(RecvTimeoutError::Timeout) if log.len() > done && !log.has_seen() => {
                    done = log.len();
                }
                Err(RecvTimeoutError::Timeout) => {
                    if !log.has_seen() {
                        log.see(Seen::Stuck {
                            what: format!("what comes after: {}", log.last()),
                            after: self.deadline * 2,
                        });
                    }
                    break None;
                }
            }
        };
        patience::until(self.deadline, || !log.lacks_the_cause());
        let (steps, seen) = log.take();
        let outcome = match (skipped, seen.is_empty()) {
            (_, false) => Outcome::Failed(seen),
            (Some(why), true) => Outcome::Skipped(why),
            (None, true) => Outcome::Passed,
        };
        Verdict {
            property,
            outcome,
            steps,
            time: began.elapsed(),
        }
    }
    /// The same as a test: panics with the report if the property fails, and says on standard error if it was skipped, and
    /// why.
    ///
    /// # Panics
    ///
    /// If it fails.
    #[track_caller]
    pub fn assert(&self, property: Property) {
        let verdict = self.check(property);
        assert!(!verdict.is_failed(), "\n{verdict}");
        match verdict.outcome {
            // A harness keeps what a test that passes prints, but not this.
            Outcome::Skipped(why) => {
                let here = std::thread::current();
                let test = here.name().unwrap_or(property.name());
                let line = format!("skipped: {test}: {why}\n");
                let _closed = std::io::stderr().write_all(line.as_bytes());
            }
            _ => println!("{verdict}"),
        }
    }

    /// Why the property was not asked for, if it was not.
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
            // What is wrong already would be found again and again.
            Ok(Ok(())) => trial.mm.exit(&mut cx),
            // Nothing of this world can be trusted to come to an end.
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
    /// What has to be true in the end.
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

impl fmt::Debug for Kit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kit")
            .field("deadline", &self.deadline)
            .field("cases", &self.cases)
            .finish_non_exhaustive()
    }
}

/// One `#[test]` for each [`Property`](crate::testkit::Property), of an external MMU that is built of its seat, or of a
/// [`Kit`](crate::testkit::Kit).
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
            auditable pairing drops_range holds_off retry overlap reach edges huge_pages foreign_threads forks
            rights aging dirty references reentrant atomic_windows alloc_failure progress exits release unregister failures scripts);
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
