//! The processes of a script, and what each operation does to them.

use super::{
    agree::{changed, look_alike},
    calls::{done, failed, system_call, touched},
    compare::{Expected, Observed},
    limits::{Limits, beyond},
    op::Op,
    own::Lives,
    pages::{Names, Numbering},
    run::{Idle, OURS},
    script::{Notified, Outcome, Script, Step},
    seen::{entry, row, told},
    work::Work,
};
use crate::{
    addr::{Vpn, VpnRange},
    error::Errno,
    extmmu::{Recorder, Told},
    file::File,
    mm::{Machine, Mm, PageState},
};
use std::{collections::BTreeMap, sync::Arc};

/// The processes of a script, by number; process 0 has an external MMU that records what it is told.
pub(super) struct Family {
    processes: BTreeMap<u32, Arc<Mm>>,
    recorder: Arc<Recorder>,
    files: BTreeMap<String, Arc<File>>,
    arena: VpnRange,
    /// What they do beside it, where that matters.
    lives: Option<Lives>,
}

impl Family {
    /// The first process with the files of a script; the error says which limit these met.
    pub(super) fn new(
        cx: &mut Idle<'_>,
        machine: &Arc<Machine>,
        script: &Script,
    ) -> Result<Self, String> {
        let files = super::objects::open(cx, machine, script)?;
        let mm = Mm::new(machine);
        let (recorder, _registration) = mm.register(cx, Recorder::new);
        let arena = script.header.arena();
        let recorded = script.header.kernel != OURS;
        let has_pressure = script.steps.iter().any(|s| matches!(s.op, Op::Reclaim {}));
        let lives = (recorded && has_pressure).then(|| Lives::begin(cx, machine, &mm));
        let lives = match lives.transpose() {
            Ok(lives) => lives,
            Err(why) => {
                mm.exit(cx);
                return Err(why);
            }
        };
        Ok(Self {
            lives,
            processes: BTreeMap::from([(0, mm)]),
            recorder,
            files,
            arena: VpnRange::new(Vpn::containing(arena.start), Vpn::containing(arena.end))
                .expect("a header with an empty arena is refused"),
        })
    }
    /// Which limit an operation would meet.
    pub(super) fn is_too_much(
        &self,
        cx: &mut Idle<'_>,
        step: &Step,
        limits: &Limits,
    ) -> Option<String> {
        let forks = matches!(step.op, Op::Fork { .. });
        if forks && self.processes.len() >= limits.processes {
            return Some(beyond(limits.processes, "processes"));
        }
        // What failed did not get that far.
        let mm = self.processes.get(&step.actor)?;
        if !matches!(step.outcome, Outcome::Ret(_)) {
            return None;
        }
        Work::of_op(&step.op).is_too_much(cx, mm, limits.step)
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
            Op::Ftruncate { ref file, len } => {
                done(self.file(file).truncate(cx.reborrow(), len), |e| e.errno())
            }
            Op::PunchHole { ref file, off, len } => {
                let file = self.file(file);
                done(file.punch_hole(cx.reborrow(), off, len), |e| e.errno())
            }
            Op::Pwrite {
                ref file,
                off,
                byte,
            } => {
                let written = self.file(file).write_at(cx.reborrow(), off, &[byte]);
                written.map_or_else(|e| failed(e.errno()), |n| Outcome::Ret(n as u64))
            }
            Op::Fsync { ref file } => done(self.file(file).sync(cx.reborrow()), |e| e.errno()),
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
            Op::Merge {} => Outcome::Ret(self.merge(cx)),
            Op::Load { addr } => touched(mm.load(cx, addr)),
            Op::Store { addr, byte } => touched(mm.store(cx, addr, byte).map(|()| 0)),
            ref call => system_call(cx, mm, call, call.file().map(|f| self.file(f))),
        }
    }

    /// Merges what can be merged; how many frames that freed.
    fn merge(&self, cx: &mut Idle<'_>) -> u64 {
        let mut pages = Vec::new();
        for mm in self.processes.values() {
            for (at, state) in mm.pagemap(cx, self.arena) {
                if matches!(state, PageState::Anon(_)) {
                    pages.push((&**mm, at.addr()));
                }
            }
        }
        let machine = self.processes.values().next().map(|mm| mm.machine());
        machine.map_or(0, |machine| machine.merge(cx, &pages) as u64)
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

    /// Whether the processes look as expected; in the end their VMAs are all looked at.
    pub(super) fn looks_as(
        &self,
        cx: &mut Idle<'_>,
        (expected, names): (&Expected<'_>, &mut Names),
        step: Option<&Step>,
    ) -> bool {
        let changed = step.map(changed);
        look_alike(cx, &self.processes, self.arena, (expected, names), |p| {
            changed.as_ref().is_none_or(|changed| changed(p))
        })
    }

    /// What the processes look like now.
    pub(super) fn observe(
        &self,
        cx: &mut Idle<'_>,
        outcome: Outcome,
        notified: Vec<Notified>,
    ) -> Observed {
        let mut layouts = BTreeMap::new();
        let mut numbering = Numbering::default();
        for (&process, mm) in &self.processes {
            let lines = mm.maps(cx);
            let inside = lines
                .iter()
                .filter(|l| self.arena.contains(Vpn::containing(l.start)));
            layouts.insert(process, inside.map(row).collect());
            numbering.process(process, mm.pagemap(cx, self.arena).into_iter().map(entry));
        }
        Observed {
            outcome,
            notified,
            layouts,
            pages: numbering.finish(),
        }
    }

    /// Lets everyone exit, children first.
    pub(super) fn end(self, cx: &mut Idle<'_>) {
        for mm in self.processes.into_values().rev() {
            mm.exit(cx);
        }
    }
}
