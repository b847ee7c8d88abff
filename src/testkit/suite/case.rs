//! One case of a suite: the source of its operations, and its result.

use super::{
    dispatch::header,
    draw::{Draw, draw},
    profile::Profile,
    stream::Stream,
};
use crate::{
    replay::{Next, Script, blank},
    testkit::{Fault, Seen},
};
use proptest::{collection::vec, prelude::*};

/// The source of the operations of a case.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// Profile, number of the file, salt of the disturbances, and draws.
    Draws(Profile, u32, u32, Vec<Draw>),
    /// A script; its recorded outcomes do not count.
    Script(Box<Script>),
}

/// One case: operations, and the fault among them.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) source: Source,
    /// The kind of operation that fails, and its number among its kind.
    pub(super) fault: Option<(Fault, u64)>,
}

/// The result of a case.
pub(super) struct Ran {
    pub(super) script: Script,
    pub(super) seen: Vec<Seen>,
    /// Number of operations of the failing kind.
    pub(super) asked: u64,
    /// The case came to an end. A case that hangs does not run again: every run would take as long.
    pub(super) is_over: bool,
}

/// Returns the strategy of cases with fewer than `steps` draws.
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
    /// Returns a script with the header of this source and no steps.
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
    /// Returns the function that gives the next operation of a living process.
    pub(super) fn next(&self) -> Box<Next<'_>> {
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
