//! The processes of a script, and the effect of each operation on them.

use super::{
    background::Background,
    buffers::Buffers,
    calls::{on_file, system_call},
    came::{failed, touched},
    compare::{Expected, Observed},
    compare_pages::{changed, look_alike},
    daemons,
    hex::Hex,
    limits::{self, ReplayLimits, beyond},
    names::Names,
    notices::Notices,
    observe::{entry, looked_at, row, vm_flags},
    op::Op,
    pages::Numbering,
    process,
    script::{Notified, OURS, Outcome, Script, Step},
    special::Special,
    uffd_op::{More, Results},
    userfaults::{Userfaults, clear_refs, protected, scan},
    work::Work,
};
use crate::{
    addr::Vpn,
    ctx::CallCx,
    error::Errno,
    extmmu::Recorder,
    file::File,
    mm::{Machine, Merger, Mm},
};
use std::{collections::BTreeMap, sync::Arc};

/// The processes of a script, by number; process 0 has an external MMU that records its
/// invalidations.
pub(super) struct Family {
    processes: BTreeMap<u32, Arc<Mm>>,
    /// Of each process, the number of processes that it descends from by forks, itself included.
    lines: BTreeMap<u32, usize>,
    /// The process of each thread besides the first ones.
    threads: BTreeMap<u32, u32>,
    notices: Notices,
    merger: Merger,
    buffers: Buffers,
    files: BTreeMap<String, Arc<File>>,
    special: Special,
    userfaults: Userfaults,
    /// The results of the last operation beside its outcome.
    results: Results,
    /// The background memory of the processes, where reclaim can reach it.
    background: Option<Background>,
    /// A kernel recorded the script.
    recorded: bool,
}

impl Family {
    /// Returns a family of the first process with the files of a script; the error names the limit
    /// that the files met.
    pub(super) fn new(
        cx: &mut CallCx<'_>,
        machine: &Arc<Machine>,
        script: &Script,
    ) -> Result<Self, String> {
        let files = super::objects::open(cx, machine, script)?;
        let mm = Mm::new(machine);
        let before = machine.mem().refused();
        if let Err(why) = script.header.before.make(cx, &mm) {
            mm.exit(cx);
            return Err(limits::met(machine, before).unwrap_or_else(|| why.to_string()));
        }
        let (recorder, _registration) = mm.register(cx, Recorder::new);
        let recorded = script.header.kernel != OURS;
        let has_pressure = script.steps.iter().any(|s| matches!(s.op, Op::Reclaim {}));
        let background = (recorded && has_pressure).then(|| Background::begin(cx, machine, &mm));
        let background = match background.transpose() {
            Ok(background) => background,
            Err(why) => {
                mm.exit(cx);
                return Err(why);
            }
        };
        Ok(Self {
            background,
            recorded,
            processes: BTreeMap::from([(0, mm)]),
            lines: BTreeMap::from([(0, 1)]),
            threads: BTreeMap::new(),
            notices: Notices::new(recorder, script.header.arena()),
            merger: Merger::new(machine),
            buffers: Buffers::default(),
            files,
            special: Special::default(),
            userfaults: Userfaults::default(),
            results: Results::default(),
        })
    }
    /// Returns the limit that an operation would meet.
    pub(super) fn is_too_much(
        &self,
        cx: &mut CallCx<'_>,
        step: &Step,
        limits: &ReplayLimits,
    ) -> Option<String> {
        if matches!(step.op, Op::Fork { .. }) {
            return self.is_one_too_many(cx, step.actor, limits);
        }
        // An operation that failed did no such work.
        let mm = self.processes.get(&self.process_of(step.actor))?;
        if !matches!(step.outcome, Outcome::Ret(_)) {
            return None;
        }
        Work::of_op(&step.op).is_too_much(cx, mm, limits.step)
    }

    /// Returns the limit that a fork would meet.
    fn is_one_too_many(
        &self,
        cx: &mut CallCx<'_>,
        actor: u32,
        limits: &ReplayLimits,
    ) -> Option<String> {
        if self.processes.len() >= limits.processes {
            return Some(beyond(limits.processes, "processes"));
        }
        let mut mappings = |(process, mm): (&u32, &Arc<Mm>), more| {
            mm.map_count(cx).saturating_mul(self.lines[process] + more)
        };
        let all: usize = self.processes.iter().map(|one| mappings(one, 0)).sum();
        let parent = self.processes.get_key_value(&self.process_of(actor))?;
        let met = all.saturating_add(mappings(parent, 1)) > limits.mappings;
        met.then(|| beyond(limits.mappings, "mappings"))
    }
    /// Returns the process of an actor: its own number, unless it is another thread of a process.
    fn process_of(&self, actor: u32) -> u32 {
        self.threads.get(&actor).copied().unwrap_or(actor)
    }
    /// Returns process 0.
    pub(super) fn first(&self) -> Arc<Mm> {
        Arc::clone(&self.processes[&0])
    }
    /// Returns the processes that have not exited, by number.
    pub(super) fn processes(&self) -> &BTreeMap<u32, Arc<Mm>> {
        &self.processes
    }
    /// Returns their numbers.
    pub(super) fn living(&self) -> Vec<u32> {
        self.processes.keys().copied().collect()
    }
    /// Drops the invalidations so far.
    pub(super) fn forget_notices(&self) {
        self.notices.forget();
    }
    /// Learns what only the outcome of a step tells: files by path, and their contents.
    pub(super) fn believe(&mut self, cx: &mut CallCx<'_>, step: &Step) {
        if let Some(mm) = self.processes.get(&self.process_of(step.actor)) {
            self.special.believe(cx, mm, (&step.op, &step.outcome));
        }
    }
    /// Executes an operation of process `actor`.
    pub(super) fn act(&mut self, cx: &mut CallCx<'_>, actor: u32, op: &Op) -> Outcome {
        let actor = self.process_of(actor);
        self.results = Results::default();
        if let Some(background) = &self.background {
            background.before(cx, &self.processes, actor, op);
        }
        let outcome = match op.has_results() {
            true => self.with_results(cx, actor, op),
            false => self.operate(cx, actor, op),
        };
        if let Some(background) = &mut self.background {
            background.after(cx, &self.processes, (actor, op), &outcome);
        }
        outcome
    }
    fn operate(&mut self, cx: &mut CallCx<'_>, actor: u32, op: &Op) -> Outcome {
        let mm = self
            .processes
            .get(&actor)
            .expect("the parser lets only living processes act");
        if Special::is_of(op) {
            return self.special.execute(cx, mm, op, &mut self.files);
        }
        if let Some(outcome) = self.special.is_closed(op) {
            return outcome;
        }
        match *op {
            Op::Fork { .. } | Op::Exit {} | Op::ExitAndReap { .. } | Op::Thread { .. } => {
                self.begin_or_end(cx, actor, op)
            }
            Op::Pin { .. } | Op::Unpin {} | Op::Vmsplice { .. } | Op::Drain {} => {
                self.buffers.act(cx, mm, actor, op)
            }
            Op::PvmRead { target, .. }
            | Op::PvmWrite { target, .. }
            | Op::ProcessMadvise { target, .. }
            | Op::MemRead { target, .. }
            | Op::MemWrite { target, .. } => {
                process::to_other(cx, mm, &self.processes[&target], op)
            }
            ref op if daemons::is_of_the_kernel(op) => self.by_the_kernel(cx, actor, op),
            Op::Load { addr } => touched(mm.load(cx, addr)),
            Op::Store { addr, byte } => touched(mm.store(cx, addr, byte).map(|()| 0)),
            ref call => self.call(cx, mm, call),
        }
    }

    /// Executes a call of one process: on a file, between a file and memory, or on memory.
    fn call(&self, cx: &mut CallCx<'_>, mm: &Mm, op: &Op) -> Outcome {
        match *op {
            Op::Ftruncate { .. }
            | Op::PunchHole { .. }
            | Op::Pwrite { .. }
            | Op::Pread { .. }
            | Op::Fsync { .. }
            | Op::SyncFileRange { .. }
            | Op::Fallocate { .. }
            | Op::DirectWrite { .. }
            | Op::FadviseDontneed { .. }
            | Op::Seal { .. } => {
                let name = op.file().expect("it names one");
                on_file(cx, self.file(name), op)
            }
            Op::ReadInto { ref file, .. }
            | Op::WriteFrom { ref file, .. }
            | Op::DirectRead { ref file, .. }
            | Op::DirectWriteFrom { ref file, .. } => {
                process::with_file(cx, mm, self.file(file), op)
            }
            ref call => {
                // A name without a file is that of a descriptor that anonymous memory ignores.
                let file = call.file().and_then(|name| self.files.get(name));
                system_call(cx, mm, call, file)
            }
        }
    }
    /// Adds a child.
    fn add(&mut self, child: u32, parent: u32, mm: Arc<Mm>) -> Outcome {
        self.processes.insert(child, mm);
        self.lines.insert(child, self.lines[&parent] + 1);
        self.userfaults.forked(parent, child);
        self.buffers.fork(parent, child);
        Outcome::Ret(u64::from(child))
    }
    /// Removes a process that has ended, and its threads.
    fn remove(&mut self, cx: &mut CallCx<'_>, process: u32) -> Outcome {
        self.processes.remove(&process);
        self.lines.remove(&process);
        self.threads.retain(|_, of| *of != process);
        self.userfaults.exited(cx, process);
        self.buffers.exit(process);
        Outcome::Ret(0)
    }

    /// Executes an operation that begins or ends a process or a thread.
    fn begin_or_end(&mut self, cx: &mut CallCx<'_>, actor: u32, op: &Op) -> Outcome {
        let mm = &self.processes[&actor];
        match *op {
            Op::Fork { child } => match process::fork(cx, mm) {
                Ok(mm) => self.add(child, actor, mm),
                Err(e) => failed(e.errno()),
            },
            Op::Exit {} => {
                mm.exit(cx);
                self.remove(cx, actor)
            }
            Op::ExitAndReap { target } => self.exit_and_reap(cx, target),
            Op::Thread { thread } => {
                self.threads.insert(thread, actor);
                Outcome::Ret(0)
            }
            ref other => unreachable!("{other:?} begins and ends nothing"),
        }
    }
    /// Executes an operation that has more results than its outcome.
    fn with_results(&mut self, cx: &mut CallCx<'_>, actor: u32, op: &Op) -> Outcome {
        let (outcome, results) = match op {
            Op::PagemapScan(of) => scan(cx, &self.processes[&of.target], of),
            Op::ClearRefs(of) => clear_refs(cx, &self.processes[&of.target], of.value),
            call => self
                .userfaults
                .act(cx, (actor, &self.processes[&actor]), call),
        };
        self.results = results;
        outcome
    }
    /// Returns the results of the last operation beside its outcome.
    pub(super) fn results(&self) -> &Results {
        &self.results
    }
    /// Kills a process and takes its memory before it ends.
    fn exit_and_reap(&mut self, cx: &mut CallCx<'_>, target: u32) -> Outcome {
        let Some(mm) = self.processes.get(&target) else {
            return failed(Errno::EINVAL);
        };
        let reaped = mm.process_mrelease(cx);
        mm.exit(cx);
        let gone = self.remove(cx, target);
        reaped.map_or_else(|why| failed(why.errno()), |()| gone)
    }

    /// Executes an operation of the kernel.
    fn by_the_kernel(&mut self, cx: &mut CallCx<'_>, actor: u32, op: &Op) -> Outcome {
        let mm = &self.processes[&actor];
        match *op {
            Op::Reclaim {} => {
                mm.machine().reclaim_all(cx);
                Outcome::Ret(0)
            }
            Op::Shrink { pages } => {
                mm.machine().reclaim(cx, pages);
                Outcome::Ret(0)
            }
            Op::Migrate { addr } => {
                self.notices
                    .migrate(cx, &self.processes, &[(actor, Hex(addr))])
            }
            Op::MigrateMany { ref moves } => self.notices.migrate(cx, &self.processes, moves),
            Op::Merge {} => process::merge(cx, &self.processes, self.notices.arena()),
            Op::Ksm { mode } => process::merging(cx, &mut self.merger, &self.processes, mode),
            ref other => daemons::act(cx, mm, other, self.recorded),
        }
    }
    fn file(&self, name: &str) -> &Arc<File> {
        let file = self.files.get(name);
        file.expect("the parser knows the files of the header only")
    }

    /// Returns the invalidations that process 0 received since the last call; those of pages that
    /// moved come in the order of `recorded`, if they can.
    pub(super) fn notified(&mut self, recorded: &[Notified]) -> Vec<Notified> {
        self.notices.take(recorded)
    }

    /// Returns true if the processes are in the expected state; at the end of a script the
    /// comparison includes all VMAs.
    pub(super) fn looks_as(
        &self,
        cx: &mut CallCx<'_>,
        (expected, names): (&Expected<'_>, &mut Names),
        step: Option<&Step>,
    ) -> bool {
        let changed = step.map(changed);
        look_alike(
            cx,
            &self.processes,
            self.notices.arena(),
            (expected, names),
            |p| changed.as_ref().is_none_or(|changed| changed(p)),
        )
    }

    /// Returns the current state of the processes.
    pub(super) fn observe(
        &self,
        cx: &mut CallCx<'_>,
        outcome: Outcome,
        notified: Vec<Notified>,
    ) -> Observed {
        let (mut layouts, mut flags) = (BTreeMap::new(), BTreeMap::new());
        let mut numbering = Numbering::default();
        let mut more = Box::new(More {
            results: self.results.clone(),
            ..More::default()
        });
        for (&process, mm) in &self.processes {
            let lines = mm.maps(cx);
            let inside = lines
                .iter()
                .filter(|l| self.notices.arena().contains(Vpn::containing(l.start)));
            layouts.insert(process, inside.map(row).collect());
            flags.insert(process, vm_flags(cx, mm, self.notices.arena()));
            more.protected
                .insert(process, protected(cx, mm, self.notices.arena()));
            let part = looked_at(cx, mm, self.notices.arena());
            let pages = part.map(|part| mm.pagemap(cx, part)).unwrap_or_default();
            numbering.process(process, pages.into_iter().map(entry));
        }
        Observed {
            outcome,
            notified,
            layouts,
            pages: numbering.finish(),
            vm_flags: flags,
            more,
        }
    }

    /// Ends every process, children first; then segments go, and the device with memory of its own.
    pub(super) fn end(self, cx: &mut CallCx<'_>, machine: &Machine) {
        for mm in self.processes.into_values().rev() {
            mm.exit(cx);
        }
        drop(self.buffers);
        self.special.end(cx, machine);
    }
}
