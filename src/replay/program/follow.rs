//! The effect of each event of a recording on processes, descriptors and address spaces.

use super::{
    believe,
    call::{Call, Returned},
    event::{ProgramEvent, What},
    execute::{correct, execute},
    family::{Family, SpaceId, Task},
    faults::{FaultKind, RecordedFault},
    files::Objects,
    image, layouts,
    load::{CALLS, FAULTS, Program},
    order::Order,
    race,
    verdict::{Differing, LayoutVerdict, Process, ProgramOutcome, equal},
    watch::{Watch, Who},
};
use crate::{
    TASK_SIZE,
    ctx::CallCx,
    mm::{Machine, Mm},
    replay::{
        limits::{self, ReplayLimits},
        work::Work,
    },
};
use std::{cell::Cell, collections::BTreeMap, mem, sync::Arc};

/// A file of a recording and a line in it.
pub(super) type Place = (&'static str, usize);

pub(super) struct Follower<'p> {
    machine: Arc<Machine>,
    limits: &'p ReplayLimits,
    program: &'p Program,
    watch: &'p mut dyn Watch,
    family: Family,
    objects: Objects,
    outcome: ProgramOutcome,
    /// The initial layouts of programs, by the line of their `execve`.
    initial: BTreeMap<usize, &'p [super::maps::Row]>,
    /// Processes whose final layout was recorded while other threads still ran, and did not fit
    /// yet.
    pending: Vec<(usize, SpaceId)>,
}

impl<'p> Follower<'p> {
    pub(super) fn new(
        machine: &Arc<Machine>,
        program: &'p Program,
        watch: &'p mut dyn Watch,
        limits: &'p ReplayLimits,
    ) -> Self {
        let rows = program.initial.values().chain(program.finals.values());
        let mut family = Family::default();
        family.begin(program.first);
        let processes = program.finals.iter().map(|(&pid, rows)| Process {
            pid,
            verdict: LayoutVerdict::NoEnd,
            linux: rows.iter().filter(|r| !r.is_special()).cloned().collect(),
            emmu: Vec::new(),
        });
        Self {
            machine: Arc::clone(machine),
            limits,
            program,
            watch,
            family,
            objects: Objects::new(machine, rows.flatten()),
            outcome: ProgramOutcome {
                name: program.name.clone(),
                processes: processes.collect(),
                ..ProgramOutcome::default()
            },
            initial: layouts::by_execve(program),
            pending: Vec::new(),
        }
    }

    /// Follows every event; after an error, `now` is the place of the event that failed.
    pub(super) fn all(
        &mut self,
        cx: &mut CallCx<'_>,
        now: &Cell<Place>,
    ) -> Result<ProgramOutcome, String> {
        let mut order = Order::new(&self.program.events);
        let mut done = Ok(());
        while let (Ok(()), Some(event)) = (
            &done,
            order.next(|e, due| race::precedes(cx, &mut self.family, &mut self.objects, e, due)),
        ) {
            let is_fault = matches!(event.what, What::Fault(_));
            now.set((if is_fault { FAULTS } else { CALLS }, event.line));
            let before = self.machine.mem().refused();
            done = self.check(cx, event).and_then(|()| {
                self.follow(cx, event);
                limits::met(&self.machine, before).map_or(Ok(()), Err)
            });
        }
        done.map(|()| mem::take(&mut self.outcome))
    }
    /// Ends every process.
    pub(super) fn end_all(&mut self, cx: &mut CallCx<'_>) {
        for tid in self.family.tids() {
            self.end(cx, tid);
        }
    }
    /// Refuses events that no kernel can have produced, and events beyond the limits.
    fn check(&self, cx: &mut CallCx<'_>, event: &ProgramEvent) -> Result<(), String> {
        let What::Call { call, returned, .. } = &event.what else {
            return Ok(());
        };
        let Some(task) = self.family.task(event.tid) else {
            return Ok(());
        };
        match *call {
            Call::Brk { .. } => {
                let answer = returned.value();
                let known = task.space.is_none_or(|space| self.family.knows_heap(space));
                match answer.filter(|at| !known && *at > TASK_SIZE) {
                    Some(at) => Err(format!("brk: a heap cannot begin at {at:#x}")),
                    None => Ok(()),
                }
            }
            Call::Clone { vm, files, .. } => {
                if returned.value() == Some(event.tid.into()) {
                    return Err(format!("thread {} is its own child", event.tid));
                }
                let kept = (vm, files);
                let why = self.family.limit_met(cx, task, kept, self.limits);
                why.map_or(Ok(()), Err)
            }
            _ if returned.value().is_some() => {
                let mm = task.space.and_then(|space| self.family.mm(space));
                let most = self.limits.step;
                let why = mm.and_then(|mm| Work::of_call(call).is_too_much(cx, mm, most));
                why.map_or(Ok(()), Err)
            }
            _ => Ok(()),
        }
    }

    fn follow(&mut self, cx: &mut CallCx<'_>, event: &ProgramEvent) {
        let Some(task) = self.family.task(event.tid) else {
            self.outcome.unknown += usize::from(event.what != What::Ended);
            return;
        };
        let who = Who {
            at: event.at,
            pid: task.pid,
            tid: event.tid,
            is_first: task.pid == self.program.first,
        };
        self.watch.begins(who, &event.what);
        self.take(cx, event, who, task);
        self.watch.over(cx, who);
    }
    fn take(&mut self, cx: &mut CallCx<'_>, event: &ProgramEvent, who: Who, task: Task) {
        match &event.what {
            What::Ended => self.end(cx, event.tid),
            What::Fault(fault) => self.fault(cx, who, task, fault),
            What::Call {
                call,
                returned,
                text,
            } => {
                self.processes(cx, (who, event.line), task, call, returned);
                // An earlier `execve` may have moved the thread.
                let Some(space) = self.family.space_of(event.tid) else {
                    self.outcome.unknown += 1;
                    return;
                };
                self.outcome.calls += 1;
                let found = self.call(cx, task, space, call, returned);
                if let Some(emmu) = found {
                    self.outcome.differing.push(Differing {
                        line: event.line,
                        call: text.clone(),
                        emmu,
                    });
                }
                if let Some(mm) = self.family.mm(space) {
                    self.watch.called(cx, mm, who, call);
                }
                self.recheck(cx, space);
            }
        }
    }

    fn fault(&mut self, cx: &mut CallCx<'_>, who: Who, task: Task, fault: &RecordedFault) {
        let Some(mm) = task.space.and_then(|space| self.family.mm(space)) else {
            self.outcome.unknown += 1;
            return;
        };
        // Above all, the kernel's own page.
        if fault.addr >= TASK_SIZE {
            return;
        }
        self.outcome.faults += 1;
        let touched = match fault.kind {
            FaultKind::Write => mm.store(cx, fault.addr, 1),
            FaultKind::Read | FaultKind::Exec => mm.load(cx, fault.addr).map(|_| ()),
        };
        self.outcome.refused += usize::from(touched.is_err());
        self.watch.touched(cx, mm, who, fault.addr, fault.kind);
    }

    /// Follows the calls that make, change and end processes.
    fn processes(
        &mut self,
        cx: &mut CallCx<'_>,
        (who, line): (Who, usize),
        task: Task,
        call: &Call,
        returned: &Returned,
    ) {
        match *call {
            Call::Execve if *returned == Returned::Value(0) => self.exec(cx, who, line),
            Call::ExitGroup => self.finish(cx, who.pid, task.space),
            Call::Clone { vm, thread, files } => {
                let child = returned.value().and_then(|c| u32::try_from(c).ok());
                if let Some(child) = child.filter(|c| *c > 0) {
                    // A new process has its number: its end went unseen.
                    self.end(cx, child);
                    let space = match (vm, task.space) {
                        (false, Some(space)) => self.fork(cx, space),
                        (_, space) => space,
                    };
                    self.family.clone_task(child, task, space, (thread, files));
                }
            }
            _ => {}
        }
    }
    fn fork(&mut self, cx: &mut CallCx<'_>, space: SpaceId) -> Option<SpaceId> {
        let child = self.family.mm(space)?.fork(cx).ok()?;
        Some(self.family.add_space(child, Some(space)))
    }

    /// Starts a new program if its layout was recorded; otherwise the process is unknown from here
    /// on.
    fn exec(&mut self, cx: &mut CallCx<'_>, who: Who, line: usize) {
        for other in self.family.others(who.pid, who.tid) {
            self.end(cx, other);
        }
        let rows = self.initial.get(&line).copied();
        let built = rows.map(|rows| image::build(cx, &self.machine, &mut self.objects, rows));
        let mut new = None;
        match built {
            Some(Ok(mm)) => new = Some(self.family.add_space(mm, None)),
            Some(Err(why)) => self.outcome.differing.push(Differing {
                line,
                call: format!("execve of process {}", who.pid),
                emmu: why,
            }),
            None => {}
        }
        if let Some(old) = self.family.move_to(who.tid, new) {
            self.exit(cx, who.is_first, &old);
        }
        if let Some(mm) = new
            .and_then(|id| self.family.mm(id))
            .filter(|_| who.is_first)
        {
            self.watch.started(cx, mm);
        }
    }
    fn end(&mut self, cx: &mut CallCx<'_>, tid: u32) {
        let pid = self.family.task(tid).map(|task| task.pid);
        if let Some(mm) = self.family.end(tid) {
            self.exit(cx, pid == Some(self.program.first), &mm);
        }
    }
    fn exit(&mut self, cx: &mut CallCx<'_>, is_first: bool, mm: &Arc<Mm>) {
        if is_first {
            self.watch.ended(cx, mm);
        }
        mm.exit(cx);
    }

    /// `exit_group`: compares the layout with the kernel's final layout.
    fn finish(&mut self, cx: &mut CallCx<'_>, pid: u32, space: Option<SpaceId>) {
        let processes = &mut self.outcome.processes;
        let Some(nth) = processes.iter().position(|p| p.pid == pid) else {
            return;
        };
        let process = &mut processes[nth];
        let Some((space, mm)) = space.and_then(|s| Some((s, self.family.mm(s)?))) else {
            process.verdict = LayoutVerdict::NoBeginning;
            return;
        };
        process.emmu = image::rows(cx, mm);
        if equal(&process.linux, &process.emmu) {
            process.verdict = LayoutVerdict::Equal;
        } else {
            process.verdict = LayoutVerdict::Differs;
            self.pending.push((nth, space));
        }
    }
    /// Repeats the comparison: the kernel's layout was recorded a little after `exit_group` began,
    /// while other threads went on.
    fn recheck(&mut self, cx: &mut CallCx<'_>, space: SpaceId) {
        let Self {
            pending,
            family,
            outcome,
            ..
        } = self;
        let waits = pending.iter().any(|&(_, at)| at == space);
        let mm = family.mm(space).filter(|_| waits);
        let rows = mm.map(|mm| image::rows(cx, mm)).unwrap_or_default();
        pending.retain(|&(nth, at)| {
            let process = outcome.processes.get_mut(nth);
            let (Some(process), Some(_)) = (process, family.mm(at)) else {
                return false;
            };
            let fits = at == space && equal(&process.linux, &rows);
            if fits {
                process.emmu.clone_from(&process.linux);
                process.verdict = LayoutVerdict::Equal;
            }
            !fits
        });
    }

    /// Everything that happens inside one address space. Returns how it ended if not as recorded.
    fn call(
        &mut self,
        cx: &mut CallCx<'_>,
        task: Task,
        space: SpaceId,
        call: &Call,
        returned: &Returned,
    ) -> Option<String> {
        if let (Call::Brk { .. }, Some(start)) = (call, returned.value())
            && !self.family.know_heap(space)
        {
            // The first answer is the beginning of the heap.
            if let Err(e) = self.family.mm(space)?.set_start_brk(cx, start) {
                return Some(e.to_string());
            }
        }
        self.describe(task.table, call, returned);
        // The effect of a call without a result is unknown.
        if *returned == Returned::Never {
            return None;
        }
        let mm = Arc::clone(self.family.mm(space)?);
        let table = self.family.descriptors(task.table);
        if believe::failed(cx, &mm, (table, &mut self.objects), call, returned) {
            return None;
        }
        let did = execute(cx, &mm, (table, &mut self.objects), call, returned)?;
        let same = match (&did, returned) {
            (Ok(mine), Returned::Value(theirs)) => mine == theirs,
            (Err(mine), Returned::Error(theirs)) => mine.to_string() == *theirs,
            _ => false,
        };
        if same {
            return None;
        }
        correct(cx, &mm, call, did.ok(), returned.value());
        Some(did.map_or_else(|e| e.to_string(), |at| format!("{at:#x}")))
    }

    /// Applies a call to the table of descriptors and to the segments.
    fn describe(&mut self, table: usize, call: &Call, returned: &Returned) {
        let table = self.family.descriptors(table);
        let objects = &mut self.objects;
        match (call, returned) {
            (Call::Open { access }, Returned::File(to)) => {
                if let Ok(opened) = objects.open(to, *access) {
                    table.insert(to, opened);
                }
            }
            (Call::Memfd { name, kind }, Returned::File(to)) => {
                if let Ok(opened) = objects.memfd(to, name, *kind) {
                    table.insert(to, opened);
                }
            }
            (Call::Secret, Returned::File(to)) => {
                if let Ok(opened) = objects.secret(to) {
                    table.insert(to, opened);
                }
            }
            (Call::Dup { file }, Returned::File(to)) => {
                if let Some(open) = table.get(file).cloned() {
                    table.insert(to, open);
                }
            }
            (Call::Close { file }, _) => table.remove(file),
            (Call::Shmget { key, size, huge }, Returned::Value(id)) => {
                let _no_memory = objects.add_segment(*id, (*key, *size), *huge);
            }
            _ => {}
        }
    }
}
