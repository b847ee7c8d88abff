//! One case of a suite: where its operations come from, how it is run, and how it is made shorter.

use super::{
    Suite,
    draw::{Draw, Stream, draw},
    jury::Jury,
    profile::{Profile, header},
    watch::Beat,
};
use crate::{
    mm::{Machine, MachineConfig},
    reclaim::RmapWindows,
    replay::{Next, Script, blank, record},
    testkit::{Fault, Seen, aside::message, trial, verdict::in_order},
};
use proptest::{collection::vec, prelude::*};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

/// Where operations come from.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// Numbers, the file that they are about, and the salt of what happens beside them.
    Draws(Profile, u32, u32, Vec<Draw>),
    /// A script, of which the outcomes are not looked at.
    Script(Script),
}

#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) source: Source,
    /// What fails, and which one of its kind.
    pub(super) fault: Option<(Fault, u64)>,
}

/// What a case came to.
pub(super) struct Ran {
    pub(super) script: Script,
    pub(super) seen: Vec<Seen>,
    /// How often what was to fail was asked for.
    pub(super) asked: u64,
    /// It came to an end. What does not is not run again, as that would take as long each time.
    pub(super) is_over: bool,
}

/// Cases of so many draws.
pub(super) fn cases(profile: Profile, steps: usize, faults: bool) -> impl Strategy<Value = Case> {
    let fault = (0..10_u32, 0..Fault::ALL.len(), 1..100_u64);
    let fault = fault
        .prop_map(move |(some, kind, nth)| (faults && some > 0).then(|| (Fault::ALL[kind], nth)));
    let all = (0..3_u32, any::<u32>(), fault, vec(draw(), 1..steps));
    all.prop_map(move |(file, salt, fault, draws)| Case {
        source: Source::Draws(profile, file, salt, draws),
        fault,
    })
}

impl Source {
    pub(super) fn blank(&self) -> Script {
        match self {
            Self::Draws(profile, _, salt, _) => {
                let mut header = header(*profile);
                header.seed = u64::from(*salt).into();
                blank("testkit", header)
            }
            Self::Script(script) => blank(&script.name, script.header.clone()),
        }
    }
    fn next(&self) -> Box<Next<'_>> {
        match self {
            Self::Draws(profile, file, _, draws) => {
                let mut stream = Stream::new(*profile, *file, draws);
                Box::new(move |living| stream.next(living))
            }
            Self::Script(script) => {
                let mut steps = script.steps.iter();
                Box::new(move |living| {
                    let mut lives = steps.by_ref().filter(|step| living.contains(&step.actor));
                    lives.next().map(|step| (step.actor, step.op.clone()))
                })
            }
        }
    }
}

/// The machine of a case. Where windows that must not block are refused, reclaim opens such.
fn machine(fault: Option<(Fault, u64)>) -> Arc<Machine> {
    let config = trial::config();
    Machine::new(match fault {
        Some((Fault::WouldBlock, _)) => MachineConfig {
            rmap_windows: RmapWindows::AtomicFirst,
            ..config
        },
        _ => config,
    })
}

impl Suite {
    /// Runs a case on this thread, which is on no machine; `beat` hears of each step before it is done.
    pub(super) fn ran_here(&self, case: &Case, look: bool, beat: &Arc<Beat>) -> Ran {
        let mut disturbances = self.disturbances;
        disturbances.fault = case.fault.or(disturbances.fault);
        let machine = machine(disturbances.fault);
        let mut script = case.source.blank();
        let few = matches!(self.profile, Profile::Files | Profile::Swap);
        let about = (&script.header, few);
        let mut jury = Jury::new(&machine, &self.kits, disturbances, about, beat);
        let run = AssertUnwindSafe(|| {
            let mut thread = machine.enter().expect("a thread that is on no machine");
            let mut cx = thread.cx();
            let mut next = case.source.next();
            record(&mut cx, &machine, &mut script, look, &mut next, &mut jury);
            jury.conclude(&mut cx, &machine);
        });
        let came = catch_unwind(run);
        let asked = jury.asked(&machine);
        let seen = match came {
            Ok(()) => std::mem::take(&mut jury.seen),
            Err(payload) => {
                // Behind what its threads said before, before what they say for it.
                jury.panics.lock().push(message(&*payload));
                jury.dismiss();
                let seen = std::mem::take(&mut jury.seen);
                // Nothing of this world can be trusted to come to an end.
                std::mem::forget(jury);
                seen
            }
        };
        Ran {
            script,
            seen: in_order(seen),
            asked,
            is_over: true,
        }
    }
    /// Leaves out every step that can be left out: the longest runs of them first, single ones last.
    pub(super) fn shorten(&self, mut case: Case, run: &dyn Fn(&Self, &Case, bool) -> Ran) -> Case {
        let whole = Case {
            fault: None,
            ..case.clone()
        };
        if case.fault.is_some() && !run(self, &whole, false).seen.is_empty() {
            case = whole;
        }
        let fails = |script: Script| {
            let source = Source::Script(script);
            let fault = case.fault;
            let ran = run(self, &Case { source, fault }, false);
            (!ran.seen.is_empty()).then_some(ran.script)
        };
        // What came after the failure is not in the script.
        let Some(mut script) = fails(run(self, &case, false).script) else {
            return case;
        };
        let mut size = script.steps.len() / 2;
        while size > 0 {
            let mut at = 0;
            let mut gone = false;
            while at < script.steps.len() {
                let mut fewer = script.clone();
                let end = (at + size).min(fewer.steps.len());
                fewer.steps.drain(at..end);
                match fails(fewer) {
                    Some(shorter) => (script, gone) = (shorter, true),
                    None => at += size,
                }
            }
            // What was needed by what is gone may go now.
            if !gone || size > 1 {
                size /= 2;
            }
        }
        Case {
            source: Source::Script(script),
            fault: case.fault,
        }
    }
}
