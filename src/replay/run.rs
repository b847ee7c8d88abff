//! Runs a script: one machine, one family of processes, compared with Linux after every step.

use super::{
    agree::look_alike,
    calls::{failed, on_file, system_call, touched},
    compare::{Difference, Expected, Observed, Parts},
    devices::{Devices, MmuKind, Presented},
    op::Op,
    own::Lives,
    pages::{Names, Numbering},
    process,
    script::{Notified, Outcome, Script},
    seen::{entry, row, told, vm_flags},
};
use crate::{
    addr::{Vpn, VpnRange},
    ctx::{AlreadyEntered, Cx, Sleepable, rank},
    error::Errno,
    extmmu::{Recorder, Told},
    file::File,
    frame::{Contents, MemConfig},
    mm::{ForkMode, Machine, MachineConfig, Merger, Mm},
    notifier::Access,
};
use std::{
    cell::Cell,
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

/// The kernel in the header of scripts that only this library has run: there is nothing beside the script in them.
pub const OURS: &str = "emmu";

pub(super) type Idle<'t> = Cx<'t, rank::Idle, Sleepable>;

/// How far a script went as on Linux.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// The script's name.
    pub name: String,
    /// The family it belongs to.
    pub profile: String,
    /// Its steps.
    pub steps: usize,
    /// The steps that went as on Linux, up to the first that did not.
    pub agreed: usize,
    /// The first step that went another way; nothing after it was run.
    pub first: Option<First>,
    /// What external MMUs had to pay, if any were attached.
    pub presented: Presented,
}

/// The step at which a script left Linux's way.
#[derive(Clone, Debug)]
pub struct First {
    /// Its line, from 1.
    pub line: usize,
    /// What was done, as JSON.
    pub step: String,
    /// What differed.
    pub difference: Difference,
}

impl Replayed {
    /// Whether every step went as on Linux.
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
/// [`AlreadyEntered`] when the current thread works on a machine already.
pub fn replay(script: &Script) -> Result<Replayed, AlreadyEntered> {
    replay_with(script, &[])
}

/// The same with external MMUs on process 0, which touch what it touches. They must make no difference.
///
/// # Errors
///
/// [`AlreadyEntered`], as above.
pub fn replay_with(script: &Script, mmus: &[MmuKind]) -> Result<Replayed, AlreadyEntered> {
    run(script, mmus, Parts::all(), ForkMode::default())
}

/// The same without external MMUs, comparing only some parts of each step: those that a recording has.
///
/// # Errors
///
/// [`AlreadyEntered`], as above.
pub fn replay_parts(script: &Script, parts: Parts) -> Result<Replayed, AlreadyEntered> {
    run(script, &[], parts, ForkMode::default())
}

/// The same without external MMUs, on a machine whose address spaces fork in the way given. It must make no difference.
///
/// # Errors
///
/// [`AlreadyEntered`], as above.
pub fn replay_forking(script: &Script, fork: ForkMode) -> Result<Replayed, AlreadyEntered> {
    run(script, &[], Parts::all(), fork)
}

fn run(
    script: &Script,
    mmus: &[MmuKind],
    parts: Parts,
    fork: ForkMode,
) -> Result<Replayed, AlreadyEntered> {
    let at = Cell::new(0);
    let run = AssertUnwindSafe(|| steps(script, mmus, parts, fork, &at));
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

fn message(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_default()
}

/// The first difference; `at` is the step that is under way.
fn steps(
    script: &Script,
    mmus: &[MmuKind],
    parts: Parts,
    fork: ForkMode,
    at: &Cell<usize>,
) -> Result<(Option<Difference>, Presented), AlreadyEntered> {
    let machine = Machine::new(MachineConfig {
        memory: MemConfig {
            frames: 1 << 20,
            contents: Contents::Real,
            swap: 1 << 17,
        },
        fork,
        ..MachineConfig::default()
    });
    let mut thread = machine.enter()?;
    let mut cx = thread.cx();
    let mut family = Family::new(&mut cx, &machine, script);
    let mut devices = Devices::new(mmus.iter().copied());
    let first = Arc::clone(&family.processes[&0]);
    devices.attach(&mut cx, &first);
    let mut expected = Expected::only(parts);
    let mut names = Names::default();
    let mut found = None;
    for (nth, step) in script.steps.iter().enumerate() {
        at.set(nth);
        expected.advance(step);
        let outcome = family.act(&mut cx, step.actor, &step.op);
        touch(&mut cx, &devices, step.actor, &step.op, &outcome);
        let notified = family.notified();
        if !expected.went(step, &outcome, &notified)
            || !family.looks_as(&mut cx, &expected, &mut names)
        {
            let observed = family.observe(&mut cx, outcome, notified);
            found = expected.difference(step, &observed);
            debug_assert!(found.is_some(), "a picture shows what differs");
            if found.is_some() {
                break;
            }
        }
    }
    devices.audit();
    family.end(&mut cx);
    devices.detach(&first);
    Ok((found, devices.presented()))
}

/// What process 0 touched, its devices touch.
fn touch(cx: &mut Idle<'_>, devices: &Devices, actor: u32, op: &Op, outcome: &Outcome) {
    if actor != 0 || !matches!(outcome, Outcome::Ret(_)) {
        return;
    }
    match *op {
        Op::Load { addr } => devices.touch(cx, addr, Access::Read),
        Op::Store { addr, .. } => devices.touch(cx, addr, Access::Write),
        _ => {}
    }
}

/// The processes of a script, by number; process 0 has an external MMU that records what it is told.
pub(super) struct Family {
    processes: BTreeMap<u32, Arc<Mm>>,
    /// The process that each thread beside the first ones is of.
    threads: BTreeMap<u32, u32>,
    recorder: Arc<Recorder>,
    merger: Merger,
    files: BTreeMap<String, Arc<File>>,
    arena: VpnRange,
    /// What they do beside it, where that matters.
    lives: Option<Lives>,
}

impl Family {
    pub(super) fn new(cx: &mut Idle<'_>, machine: &Arc<Machine>, script: &Script) -> Self {
        let mm = Mm::new(machine);
        script.header.before.make(cx, &mm);
        let (recorder, _registration) = mm.register(cx, Recorder::new);
        let arena = script.header.arena();
        let recorded = script.header.kernel != OURS;
        let has_pressure = script.steps.iter().any(|s| matches!(s.op, Op::Reclaim {}));
        let lives = (recorded && has_pressure).then(|| Lives::begin(cx, machine, &mm));
        Self {
            lives,
            processes: BTreeMap::from([(0, mm)]),
            threads: BTreeMap::new(),
            recorder,
            merger: Merger::new(machine),
            files: super::objects::open(cx, machine, script),
            arena: VpnRange::new(Vpn::containing(arena.start), Vpn::containing(arena.end))
                .expect("a header with an empty arena is refused"),
        }
    }

    /// Process 0.
    pub(super) fn first(&self) -> Arc<Mm> {
        Arc::clone(&self.processes[&0])
    }
    /// The processes that have not exited, by number.
    pub(super) fn processes(&self) -> &BTreeMap<u32, Arc<Mm>> {
        &self.processes
    }
    /// Their numbers.
    pub(super) fn living(&self) -> Vec<u32> {
        self.processes.keys().copied().collect()
    }
    /// What process 0 was told so far is not asked for.
    pub(super) fn forget_told(&self) {
        let _told = self.recorder.take();
    }
    /// Lets process `actor` do `op`.
    pub(super) fn act(&mut self, cx: &mut Idle<'_>, actor: u32, op: &Op) -> Outcome {
        let actor = self.threads.get(&actor).copied().unwrap_or(actor);
        if let Some(lives) = &self.lives {
            lives.before(cx, &self.processes, actor, op);
        }
        let outcome = self.operate(cx, actor, op);
        if let Some(lives) = &mut self.lives {
            lives.after(cx, &self.processes, (actor, op), &outcome);
        }
        outcome
    }
    fn operate(&mut self, cx: &mut Idle<'_>, actor: u32, op: &Op) -> Outcome {
        let mm = self
            .processes
            .get(&actor)
            .expect("the parser lets only living processes act");
        match *op {
            Op::Fork { child } => match mm.fork(cx) {
                Ok(mm) => {
                    self.processes.insert(child, mm);
                    Outcome::Ret(u64::from(child))
                }
                Err(e) => failed(e.errno()),
            },
            Op::Exit {} => {
                mm.exit(cx);
                self.processes.remove(&actor);
                Outcome::Ret(0)
            }
            Op::Thread { thread } => {
                self.threads.insert(thread, actor);
                Outcome::Ret(0)
            }
            Op::Ftruncate { .. }
            | Op::PunchHole { .. }
            | Op::Pwrite { .. }
            | Op::Pread { .. }
            | Op::Fsync { .. }
            | Op::SyncFileRange { .. } => {
                let name = op.file().expect("it names one");
                on_file(cx, self.file(name), op)
            }
            Op::ReadInto { ref file, .. } | Op::WriteFrom { ref file, .. } => {
                process::with_file(cx, mm, self.file(file), op)
            }
            Op::PvmRead { target, .. }
            | Op::PvmWrite { target, .. }
            | Op::ProcessMadvise { target, .. } => {
                process::to_other(cx, mm, &self.processes[&target], op)
            }
            Op::Reclaim {}
            | Op::Shrink { .. }
            | Op::Migrate { .. }
            | Op::MigrateMany { .. }
            | Op::Merge {}
            | Op::Ksm { .. } => self.by_the_kernel(cx, actor, op),
            Op::Load { addr } => touched(mm.load(cx, addr)),
            Op::Store { addr, byte } => touched(mm.store(cx, addr, byte).map(|()| 0)),
            ref call => system_call(cx, mm, call, call.file().map(|f| self.file(f))),
        }
    }

    /// What no process does.
    fn by_the_kernel(&mut self, cx: &mut Idle<'_>, actor: u32, op: &Op) -> Outcome {
        let mm = &self.processes[&actor];
        match *op {
            Op::Reclaim {} => {
                mm.machine().reclaim(cx);
                Outcome::Ret(0)
            }
            Op::Shrink { pages } => {
                mm.machine().shrink(cx, pages);
                Outcome::Ret(0)
            }
            Op::Migrate { addr } => mm.migrate(cx, addr).map_or(failed(Errno::ENOMEM), |to| {
                Outcome::Ret(u64::from(to.is_some()))
            }),
            Op::MigrateMany { ref moves } => process::migrate(cx, &self.processes, moves),
            Op::Merge {} => process::merge(cx, &self.processes, self.arena),
            Op::Ksm { mode } => process::merging(cx, &mut self.merger, &self.processes, mode),
            ref other => unreachable!("{other:?} is done by a process"),
        }
    }
    fn file(&self, name: &str) -> &Arc<File> {
        self.files
            .get(name)
            .expect("the parser knows the files of the header only")
    }

    /// What process 0 was told since this was asked last.
    pub(super) fn notified(&self) -> Vec<Notified> {
        let here = |t: &&Told| self.arena.overlaps(t.range());
        self.recorder.take().iter().filter(here).map(told).collect()
    }

    /// Whether the processes look as expected.
    fn looks_as(&self, cx: &mut Idle<'_>, expected: &Expected<'_>, names: &mut Names) -> bool {
        look_alike(cx, &self.processes, self.arena, expected, names)
    }

    /// What the processes look like now.
    pub(super) fn observe(
        &self,
        cx: &mut Idle<'_>,
        outcome: Outcome,
        notified: Vec<Notified>,
    ) -> Observed {
        let (mut layouts, mut flags) = (BTreeMap::new(), BTreeMap::new());
        let mut numbering = Numbering::default();
        for (&process, mm) in &self.processes {
            let lines = mm.maps(cx);
            let inside = lines
                .iter()
                .filter(|l| self.arena.contains(Vpn::containing(l.start)));
            layouts.insert(process, inside.map(row).collect());
            flags.insert(process, vm_flags(cx, mm, self.arena));
            numbering.process(process, mm.pagemap(cx, self.arena).into_iter().map(entry));
        }
        Observed {
            outcome,
            notified,
            layouts,
            pages: numbering.finish(),
            vm_flags: flags,
        }
    }

    /// Lets everyone exit, children first.
    pub(super) fn end(self, cx: &mut Idle<'_>) {
        for mm in self.processes.into_values().rev() {
            mm.exit(cx);
        }
    }
}
