//! Runs a script: one machine, one family of processes, compared with Linux after every step.

use super::{
    compare::{Difference, Expected, Observed},
    op::Op,
    pages::{Kind, Numbering},
    script::{MapsRow, Notice, Notified, Outcome, Script},
};
use crate::{
    addr::{PAGE_SIZE, Pfn, Vpn, VpnRange},
    ctx::{AlreadyEntered, Cx, Sleepable, rank},
    error::{Errno, FaultError},
    extmmu::{Recorder, Told},
    file::File,
    frame::{Contents, MemConfig},
    mm::{
        Machine, MachineConfig, MapFlags, MapsLine, Mm, MmapArgs, MremapArgs, MsyncFlags,
        PageState, Prot,
    },
};
use std::{
    cell::Cell,
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

type Idle<'t> = Cx<'t, rank::Idle, Sleepable>;

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
    let at = Cell::new(0);
    let found = match catch_unwind(AssertUnwindSafe(|| steps(script, &at))) {
        Ok(found) => found?,
        Err(payload) => Some(Difference::Panic(message(payload.as_ref()))),
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
    })
}

fn message(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_default()
}

/// The first difference; `at` is the step that is under way.
fn steps(script: &Script, at: &Cell<usize>) -> Result<Option<Difference>, AlreadyEntered> {
    let machine = Machine::new(MachineConfig {
        memory: MemConfig {
            frames: 1 << 20,
            contents: Contents::Real,
            swap: 1 << 17,
        },
        ..MachineConfig::default()
    });
    let mut thread = machine.enter()?;
    let mut cx = thread.cx();
    let mut family = Family::new(&mut cx, &machine, script);
    let mut expected = Expected::default();
    let mut found = None;
    for (nth, step) in script.steps.iter().enumerate() {
        at.set(nth);
        expected.advance(step);
        let outcome = family.act(&mut cx, step.actor, &step.op);
        found = expected.difference(step, &family.observe(&mut cx, outcome));
        if found.is_some() {
            break;
        }
    }
    family.end(&mut cx);
    Ok(found)
}

/// Where the pages lie that a recorded process had beside the arena, how many, and how many it used all the time.
const OWN: u64 = 1 << 30;
const OWN_PAGES: u64 = 48;
const OWN_USED: u64 = 4;

/// The processes of a script, by number; process 0 has an external MMU that records what it is told.
struct Family {
    processes: BTreeMap<u32, Arc<Mm>>,
    recorder: Arc<Recorder>,
    files: BTreeMap<String, Arc<File>>,
    arena: VpnRange,
    has_own_pages: bool,
}

impl Family {
    fn new(cx: &mut Idle<'_>, machine: &Arc<Machine>, script: &Script) -> Self {
        let mm = Mm::new(machine);
        let (recorder, _registration) = mm.register(cx, Recorder::new);
        let arena = script.header.arena();
        // Only pressure on memory makes a difference here.
        let has_own_pages = script.steps.iter().any(|s| matches!(s.op, Op::Reclaim {}));
        if has_own_pages {
            let own = MmapArgs::anonymous(OWN_PAGES * PAGE_SIZE).fixed(OWN);
            mm.mmap(cx, &own).expect("an empty address space");
            for page in 0..OWN_PAGES {
                mm.store(cx, OWN + page * PAGE_SIZE, 1)
                    .expect("just mapped");
            }
        }
        Self {
            has_own_pages,
            processes: BTreeMap::from([(0, mm)]),
            recorder,
            files: super::objects::open(cx, machine, script),
            arena: VpnRange::new(Vpn::containing(arena.start), Vpn::containing(arena.end))
                .expect("a header with an empty arena is refused"),
        }
    }

    /// Lets process `actor` do `op`.
    fn act(&mut self, cx: &mut Idle<'_>, actor: u32, op: &Op) -> Outcome {
        self.own_life(cx, actor);
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
            Op::Reclaim {} => {
                mm.machine().reclaim(cx);
                Outcome::Ret(0)
            }
            Op::Load { addr } => touched(mm.load(cx, addr)),
            Op::Store { addr, byte } => touched(mm.store(cx, addr, byte).map(|()| 0)),
            ref call => system_call(cx, mm, call, call.file().map(|f| self.file(f))),
        }
    }

    /// A process that was recorded had a stack and data of its own outside of the arena, and used some of it for every
    /// operation. Reclaim works on these pages too.
    fn own_life(&self, cx: &mut Idle<'_>, actor: u32) {
        if let (true, Some(mm)) = (self.has_own_pages, self.processes.get(&actor)) {
            for page in 0..OWN_USED {
                let _no_frame = mm.store(cx, OWN + page * PAGE_SIZE, 1);
            }
        }
    }
    fn file(&self, name: &str) -> &Arc<File> {
        self.files
            .get(name)
            .expect("the parser knows the files of the header only")
    }

    /// What the processes look like now.
    fn observe(&self, cx: &mut Idle<'_>, outcome: Outcome) -> Observed {
        let told_here = |t: &&Told| self.arena.overlaps(t.range());
        let notified = self
            .recorder
            .take()
            .iter()
            .filter(told_here)
            .map(told)
            .collect();
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
    fn end(self, cx: &mut Idle<'_>) {
        for mm in self.processes.into_values().rev() {
            mm.exit(cx);
        }
    }
}

/// The calls that only one address space takes part in.
fn system_call(cx: &mut Idle<'_>, mm: &Mm, op: &Op, file: Option<&Arc<File>>) -> Outcome {
    match *op {
        Op::Mmap { .. } => map(cx, mm, op, file),
        Op::Mremap {
            addr,
            old_len,
            new_len,
            flags,
            new_addr,
        } => {
            let args = MremapArgs {
                addr,
                old_len,
                new_len,
                flags,
                new_addr,
            };
            mm.mremap(cx, args)
                .map_or_else(|e| failed(e.errno()), Outcome::Ret)
        }
        Op::RemapFilePages { addr, len, pgoff } => {
            let (prot, flags) = (Prot::empty(), MapFlags::empty());
            let remapped = mm.remap_file_pages(cx, addr, len, prot, pgoff, flags);
            done(remapped, |e| e.errno())
        }
        Op::Munmap { addr, len } => done(mm.munmap(cx, addr, len), |e| e.errno()),
        Op::Mprotect { addr, len, prot } => done(mm.mprotect(cx, addr, len, prot), |e| e.errno()),
        Op::Madvise { addr, len, advice } => done(mm.madvise(cx, addr, len, advice), |e| e.errno()),
        Op::Msync { addr, len } => done(mm.msync(cx, addr, len, MsyncFlags::SYNC), |e| e.errno()),
        Op::Mlock { addr, len } => done(mm.mlock(cx, addr, len), |e| e.errno()),
        Op::Munlock { addr, len } => done(mm.munlock(cx, addr, len), |e| e.errno()),
        ref other => unreachable!("{other:?} is not such a call"),
    }
}

/// `mmap`; no file: anonymous.
fn map(cx: &mut Idle<'_>, mm: &Mm, op: &Op, file: Option<&Arc<File>>) -> Outcome {
    let Op::Mmap {
        addr,
        len,
        prot,
        flags,
        off: offset,
        ..
    } = *op
    else {
        unreachable!("{op:?} is not mmap");
    };
    let anonymous = match file {
        None => MapFlags::ANONYMOUS,
        Some(_) => MapFlags::empty(),
    };
    let args = MmapArgs {
        addr,
        len,
        prot,
        flags: flags | anonymous,
        file: file.cloned(),
        offset,
    };
    mm.mmap(cx, &args)
        .map_or_else(|e| failed(e.errno()), Outcome::Ret)
}

fn failed(errno: Errno) -> Outcome {
    Outcome::Err(errno.to_string())
}

fn done<E>(result: Result<(), E>, errno: impl FnOnce(E) -> Errno) -> Outcome {
    result.map_or_else(|e| failed(errno(e)), |()| Outcome::Ret(0))
}

fn touched(result: Result<u8, FaultError>) -> Outcome {
    match result {
        Ok(byte) => Outcome::Ret(u64::from(byte)),
        Err(e) => e
            .signal()
            .map_or_else(|| failed(e.errno()), Outcome::Signal),
    }
}

/// A line of the maps as a script has it.
fn row(line: &MapsLine) -> MapsRow {
    let name = line.name.trim_end_matches(" (deleted)");
    let what = match name {
        _ if line.anonymous => "anon",
        "/dev/zero" => "zero",
        // `/memfd:f0` or a path.
        name => name.rsplit(['/', ':']).next().unwrap_or(name),
    };
    MapsRow {
        start: line.start,
        end: line.end,
        perms: line.perms(),
        offset: line.offset,
        what: what.to_owned(),
    }
}

fn entry((page, state): (Vpn, PageState)) -> (u64, Kind, Option<Pfn>) {
    let (kind, pfn) = match state {
        PageState::Anon(pfn) => (Kind::Anon, Some(pfn)),
        PageState::Object(pfn) => (Kind::Object, Some(pfn)),
        PageState::Zero => (Kind::Zero, None),
        PageState::Swap => (Kind::Swap, None),
        PageState::Guard => (Kind::Guard, None),
    };
    (page.0, kind, pfn)
}

fn told(told: &Told) -> Notified {
    let (notice, range) = match told {
        Told::Window(range) => (Notice::Unmap, range),
        Told::Age(range) => (Notice::Age, range),
    };
    Notified {
        notice,
        start: range.start().addr(),
        end: range.end().addr(),
    }
}
