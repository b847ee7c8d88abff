//! The replay of a script: one machine, one family of processes, compared with Linux after every
//! step.

use super::{
    compare::{Difference, Expected, Parts},
    devices::{Devices, Presented},
    family::Family,
    ground::PoolBefore,
    limits::{self, InputError, ReplayError, ReplayLimits},
    mmu_kind::MmuKind,
    names::Names,
    op::Op,
    script::{Outcome, Script, Step},
};
use crate::{
    ctx::CallCx,
    frame::{HugePoolConfig, HugeSize},
    mm::{ForkMode, Machine, MachineConfig},
    notifier::Access,
    oracle::message,
};
use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

/// The result of a replay: the progress of a script until its first difference.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// The name of the script.
    pub name: String,
    /// The family of the script.
    pub profile: String,
    /// Number of steps of the script.
    pub steps: usize,
    /// Number of steps that went as on Linux, up to the first that did not.
    pub agreed: usize,
    /// The first step that differs; later steps did not run.
    pub first: Option<First>,
    /// Costs of the external MMUs, if any were attached.
    pub presented: Presented,
}

/// The first step of a script that differs from Linux.
#[derive(Clone, Debug)]
pub struct First {
    /// Number of the line, from 1.
    pub line: usize,
    /// The operation, as JSON.
    pub step: String,
    /// The difference.
    pub difference: Difference,
}

impl Replayed {
    /// Returns true if every step went as on Linux.
    pub fn is_whole(&self) -> bool {
        self.first.is_none()
    }
}

/// Runs a script on a machine of its own, up to the first difference.
///
/// A panic of this library is a difference like any other, so that its report names the step.
///
/// # Errors
///
/// [`ReplayError`] if the current thread is on a machine already, or if the script exceeds the
/// usual [`ReplayLimits`].
///
/// # Examples
///
/// ```
/// use emmu::replay::{replay, shipped};
///
/// let scripts = shipped()?;
/// let replayed = replay(&scripts[0])?;
/// assert!(replayed.is_whole(), "every step went as on Linux");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn replay(script: &Script) -> Result<Replayed, ReplayError> {
    replay_with(script, &[])
}

/// Runs a script as [`replay`] does, with external MMUs on process 0 that access the same pages.
/// The external MMUs must make no difference.
///
/// # Errors
///
/// As [`replay`].
///
/// # Examples
///
/// ```
/// use emmu::replay::{MmuKind, replay_with, shipped};
///
/// let scripts = shipped()?;
/// let replayed = replay_with(&scripts[0], &[MmuKind::Kvm, MmuKind::Gru])?;
/// assert!(replayed.is_whole());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn replay_with(script: &Script, mmus: &[MmuKind]) -> Result<Replayed, ReplayError> {
    replay_within(script, mmus, &ReplayLimits::default())
}

/// Runs a script as [`replay_with`] does, within other limits.
///
/// # Errors
///
/// As [`replay`].
pub fn replay_within(
    script: &Script,
    mmus: &[MmuKind],
    limits: &ReplayLimits,
) -> Result<Replayed, ReplayError> {
    run(script, mmus, How::within(limits))
}

/// Runs a script as [`replay`] does, and compares only some parts of each step: those that a
/// recording has.
///
/// # Errors
///
/// As [`replay`].
pub fn replay_parts(script: &Script, parts: Parts) -> Result<Replayed, ReplayError> {
    let how = How::within(&ReplayLimits::default());
    run(script, &[], How { parts, ..how })
}

/// Runs a script as [`replay`] does, on a machine whose address spaces fork in the given way. The
/// way must make no difference.
///
/// # Errors
///
/// As [`replay`].
pub fn replay_forking(script: &Script, fork: ForkMode) -> Result<Replayed, ReplayError> {
    let how = How::within(&ReplayLimits::default());
    run(script, &[], How { fork, ..how })
}

/// The settings of a replay.
struct How {
    parts: Parts,
    fork: ForkMode,
    limits: ReplayLimits,
}

impl How {
    fn within(limits: &ReplayLimits) -> Self {
        Self {
            parts: Parts::all(),
            fork: ForkMode::default(),
            limits: *limits,
        }
    }
}

fn run(script: &Script, mmus: &[MmuKind], how: How) -> Result<Replayed, ReplayError> {
    script.check_files(&how.limits)?;
    let mut best = None;
    for pool in script.header.huge_pages() {
        let replayed = run_once(script, mmus, (&how, pool))?;
        let is_better = |best: &Replayed| replayed.agreed > best.agreed;
        if best.as_ref().is_none_or(is_better) {
            best = Some(replayed);
        }
        if best.as_ref().is_some_and(Replayed::is_whole) {
            break;
        }
    }
    Ok(best.expect("a pool has a size"))
}

/// Runs a script with this pool of huge pages.
fn run_once(
    script: &Script,
    mmus: &[MmuKind],
    (how, pool): (&How, PoolBefore),
) -> Result<Replayed, ReplayError> {
    let at = Cell::new(0);
    let run = AssertUnwindSafe(|| steps(script, mmus, (how, pool), &at));
    let (found, presented) = match catch_unwind(run) {
        Ok(done) => done?,
        Err(payload) => {
            let panic = Difference::Panic(message(payload.as_ref()));
            (Some(panic), Presented::default())
        }
    };
    let first = found.and_then(|difference| {
        let step = script.steps.get(at.get())?;
        Some(First {
            line: step.line,
            step: step.to_json(),
            difference,
        })
    });
    Ok(Replayed {
        name: script.name.clone(),
        profile: script.header.profile.clone(),
        steps: script.steps.len(),
        agreed: if first.is_some() {
            at.get()
        } else {
            script.steps.len()
        },
        first,
        presented,
    })
}

/// Pages of the commit limit, and of swap: those of the machine that recorded the scripts.
const RECORDED: (u64, u32) = (1 << 20, 1 << 17);

/// Returns the first difference; `at` is the current step.
fn steps(
    script: &Script,
    mmus: &[MmuKind],
    (how, pool): (&How, PoolBefore),
    at: &Cell<usize>,
) -> Result<(Option<Difference>, Presented), ReplayError> {
    let rest = MachineConfig {
        fork: how.fork,
        folios: script.header.folios(),
        huge_pages: HugePoolConfig {
            pages: pool.pages,
            overcommit: 0,
        },
        ..MachineConfig::default()
    };
    let (total, swap) = RECORDED;
    let swap = script.header.swap.map_or(swap, |had| had.min(swap));
    let machine = how.limits.machine((total, swap), rest);
    // If memory is too small for the pool, fewer are promised.
    let _all = machine.mem().reserve_huge(HugeSize::Mib2, pool.promised);
    let mut thread = machine.enter()?;
    let mut cx = thread.cx();
    let family = Family::new(&mut cx, &machine, script);
    let family = family.map_err(|why| refused(script, 1, why))?;
    let mut devices = Devices::new(mmus.iter().copied());
    let first = family.first();
    devices.attach(&mut cx, &first);
    let mut going = Going {
        machine: &machine,
        family,
        devices: &devices,
        limits: &how.limits,
        expected: Expected::only(how.parts),
        names: Names::default(),
    };
    let mut ended = Ok(None);
    for (nth, step) in script.steps.iter().enumerate() {
        at.set(nth);
        let is_last = nth + 1 == script.steps.len();
        ended = going.step(&mut cx, step, is_last);
        if !matches!(ended, Ok(None)) {
            break;
        }
    }
    devices.audit();
    going.family.end(&mut cx, &machine);
    devices.detach(&first);
    match (ended, script.steps.get(at.get())) {
        (Ok(found), _) => Ok((found, devices.presented())),
        (Err(why), step) => Err(refused(script, step.map_or(1, |step| step.line), why)),
    }
}

/// A running script.
struct Going<'r> {
    machine: &'r Arc<Machine>,
    family: Family,
    devices: &'r Devices,
    limits: &'r ReplayLimits,
    expected: Expected<'r>,
    names: Names,
}

impl<'r> Going<'r> {
    /// Executes a step; returns the difference, or the limit that the step met.
    fn step(
        &mut self,
        cx: &mut CallCx<'_>,
        step: &'r Step,
        is_last: bool,
    ) -> Result<Option<Difference>, String> {
        self.expected.advance(step);
        let before = self.machine.mem().refused();
        let family = &mut self.family;
        if let Some(why) = family.is_too_much(cx, step, self.limits) {
            return Err(why);
        }
        family.believe(cx, step);
        let outcome = family.act(cx, step.actor, &step.op);
        if let Some(why) = limits::met(self.machine, before) {
            return Err(why);
        }
        touch(cx, self.devices, step.actor, &step.op, &outcome);
        let notified = family.notified(&step.notified);
        let looked = (&self.expected, &mut self.names);
        let came = (&outcome, family.results());
        if self.expected.went(step, came, &notified)
            && family.looks_as(cx, looked, (!is_last).then_some(step))
        {
            return Ok(None);
        }
        let observed = family.observe(cx, outcome, notified);
        let found = self.expected.difference(step, &observed);
        debug_assert!(found.is_some(), "a picture shows what differs");
        Ok(found)
    }
}

fn refused(script: &Script, line: usize, why: String) -> ReplayError {
    let file = script.name.clone();
    InputError { file, line, why }.into()
}

/// Accesses the page that process 0 accessed, with each device.
fn touch(cx: &mut CallCx<'_>, devices: &Devices, actor: u32, op: &Op, outcome: &Outcome) {
    if actor != 0 || !matches!(outcome, Outcome::Ret(_)) {
        return;
    }
    match *op {
        Op::Load { addr } => devices.touch(cx, addr, Access::Read),
        Op::Store { addr, .. } => devices.touch(cx, addr, Access::Write),
        _ => {}
    }
}
