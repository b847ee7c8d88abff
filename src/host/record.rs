//! The recording: each step of a plan runs, then the recorder looks at the processes.

use super::{
    ARENA, MAX_PROCESSES, RELEASE,
    call::request,
    family::Family,
    files, look,
    plan::{Plan, Unavailable},
    pool::Pool,
    special::Special,
    trace::Trace,
    userfaults::Userfaults,
};
use crate::{
    addr::PAGE_SIZE,
    mm::{MapFlags, Prot},
    replay::{
        Answer, Copy, FaultLoad, FaultStore, Header, MapsRow, More, Numbering, Op, Outcome,
        PageTables, Parts, Resolve, Results, Script, Step,
    },
};
use std::{collections::BTreeMap, fs::File, io, os::fd::AsRawFd};

/// A script as the kernel has run it.
#[derive(Clone, Debug)]
pub struct Recording {
    /// The recorded script.
    pub script: Script,
    /// The parts that can be compared with this library.
    pub parts: Parts,
}

/// Executes a plan with real processes.
///
/// # Errors
///
/// [`Unavailable`] if a part of the plan or of the host does not allow a recording.
pub fn record(plan: &Plan) -> Result<Recording, Unavailable> {
    let page = rustix::param::page_size();
    if page as u64 != PAGE_SIZE {
        return Err(Unavailable::PageSize(page));
    }
    check(plan)?;
    let pool = Pool::of(plan)?;
    let mut recorder = Recorder::new(plan)?;
    let mut steps = Vec::new();
    for (actor, op) in &plan.steps {
        if recorder
            .family
            .living()
            .any(|(process, _)| process == *actor)
        {
            steps.push(recorder.step(steps.len() + 2, *actor, op)?);
        }
    }
    let mut header = Header::new(&plan.name, 0, &recorder.kernel, ARENA, plan.files.clone());
    header.swap = (!has_swap()).then_some(0);
    header.opens.clone_from(&plan.opens);
    if let Some(pool) = &pool {
        header = header.with_pool(pool.before()?);
    }
    let script = Script {
        name: plan.name.clone(),
        header,
        steps,
    };
    let parts = recorder.parts;
    Ok(Recording { script, parts })
}

/// Returns true if pages can go to swap: `/proc/swaps` names a device below its title.
fn has_swap() -> bool {
    let swaps = std::fs::read_to_string("/proc/swaps").unwrap_or_default();
    swaps.lines().count() > 1
}

/// Refuses an impossible plan before its first step.
fn check(plan: &Plan) -> Result<(), Unavailable> {
    let refuse = |nth, why| Err(Unavailable::Step { nth, why });
    if plan.files.values().any(|f| !files::is_known(f.kind)) {
        return refuse(0, "files of that kind cannot be made here");
    }
    for (nth, (_, op)) in plan.steps.iter().enumerate() {
        match op {
            Op::Reclaim {} => return refuse(nth, "reclaim needs a control group"),
            Op::Shrink { .. } | Op::Migrate { .. } | Op::Merge {} => {
                return refuse(nth, "no kernel can be asked for it");
            }
            Op::Fork { child } if *child >= MAX_PROCESSES => {
                return refuse(nth, "too many processes");
            }
            Op::Exec { addr } if !ARENA.contains(addr) => {
                return refuse(nth, "a jump to an address outside of the arena");
            }
            op if !can_answer(op) => {
                return refuse(nth, "an answer that the recorder cannot give");
            }
            op if !is_own(op) && request(op, None).is_none() => {
                return refuse(nth, "an operation that only other recorders do");
            }
            op if op.file().is_some_and(|f| !is_open(plan, f)) => {
                return refuse(nth, "a file that is not in the plan");
            }
            _ => {}
        }
    }
    Ok(())
}

/// Returns true for an operation that the recorder does, not a process alone.
fn is_own(op: &Op) -> bool {
    let with_proc = matches!(
        op,
        Op::Fork { .. } | Op::Exit {} | Op::MemRead { .. } | Op::MemWrite { .. }
    );
    with_proc || Special::is_of(op) || op.has_results()
}

/// Returns false for a copy that is too long, and for a move of pages by a process that waits.
fn can_answer(op: &Op) -> bool {
    let short = |call: &Answer| !matches!(call, Answer::UffdCopy(c) if c.len > Copy::MOST);
    let stays = |call: &Answer| !matches!(call, Answer::UffdMove(_));
    match op {
        Op::FaultLoad(FaultLoad { resolve, .. }) | Op::FaultStore(FaultStore { resolve, .. }) => {
            resolve.iter().all(|Resolve(c)| short(c) && stays(c))
        }
        other => Answer::of(other).is_none_or(|call| short(&call)),
    }
}

fn is_open(plan: &Plan, name: &str) -> bool {
    plan.files.contains_key(name) || plan.opens.contains_key(name)
}

struct Recorder {
    files: BTreeMap<String, File>,
    special: Special,
    userfaults: Userfaults,
    family: Family,
    trace: Option<Trace>,
    kernel: String,
    parts: Parts,
    /// The frame of the zero page, if frames are visible.
    zero: u64,
    layouts: BTreeMap<u32, Vec<MapsRow>>,
    pages: PageTables,
    protected: BTreeMap<u32, Vec<u64>>,
}

impl Recorder {
    fn new(plan: &Plan) -> Result<Self, Unavailable> {
        let files = files::open(plan)?;
        let special = Special::of(plan)?;
        let all = files.values().map(AsRawFd::as_raw_fd);
        let family = Family::start(true, all.chain(special.descriptors()))?;
        let pid = family.living().next().map_or(0, |(_, pid)| pid);
        let trace = family.has_vm.then(|| Trace::of(pid).ok()).flatten();
        let kernel = rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned();
        let mut recorder = Self {
            files,
            special,
            userfaults: Userfaults::default(),
            trace,
            kernel,
            parts: Parts::OUTCOMES,
            zero: 0,
            layouts: BTreeMap::from([(0, Vec::new())]),
            pages: PageTables::default(),
            protected: BTreeMap::new(),
            family,
        };
        recorder.probe(pid)?;
        Ok(recorder)
    }
    /// Finds the visible parts: maps, reads, writes and unmaps a page.
    fn probe(&mut self, pid: i32) -> Result<(), Unavailable> {
        let (addr, len) = (ARENA.start, PAGE_SIZE);
        let map = Op::Mmap {
            addr,
            len,
            prot: Prot::READ | Prot::WRITE,
            flags: MapFlags::PRIVATE | MapFlags::FIXED_NOREPLACE,
            file: None,
            off: 0,
        };
        self.act(0, &map)?;
        self.act(0, &Op::Load { addr })?;
        let zero = look::frame(pid, addr / PAGE_SIZE)?;
        self.act(0, &Op::Store { addr, byte: 1 })?;
        self.act(0, &Op::Munmap { addr, len })?;
        let told = match &mut self.trace {
            Some(trace) => trace.take()?,
            None => Vec::new(),
        };
        if self.kernel.starts_with(RELEASE) {
            self.parts |= Parts::LAYOUTS;
            self.parts.set(Parts::WINDOWS, !told.is_empty());
            self.parts.set(Parts::PAGES, zero.is_some());
        }
        self.zero = zero.unwrap_or(0);
        Ok(())
    }
    fn act(&mut self, actor: u32, op: &Op) -> io::Result<(Outcome, Results)> {
        if op.has_results() {
            return self.userfaults.act(&mut self.family, actor, op);
        }
        let outcome = match op {
            Op::Fork { child } => self.family.fork(actor, *child),
            Op::Exit {} => self.family.exit(actor),
            Op::MemRead { addr, target } => look::force(self.family.pid(*target)?, *addr, None),
            Op::MemWrite { addr, target, byte } => {
                look::force(self.family.pid(*target)?, *addr, Some(*byte))
            }
            op if Special::is_of(op) => self.special.act(&mut self.family, actor, op),
            op => {
                let file = op.file().and_then(|name| self.files.get(name));
                let request = request(op, file.map(AsRawFd::as_raw_fd));
                self.family
                    .ask(actor, request.ok_or(io::ErrorKind::Unsupported)?)
            }
        };
        Ok((outcome?, Results::default()))
    }
    fn step(&mut self, line: usize, actor: u32, op: &Op) -> io::Result<Step> {
        let (outcome, results) = self.act(actor, op)?;
        let notified = match &mut self.trace {
            Some(trace) => trace.take()?,
            None => Vec::new(),
        };
        let mut now = BTreeMap::new();
        let mut numbering = Numbering::default();
        let mut protected = BTreeMap::new();
        for (process, pid) in self.family.living() {
            let layout = look::layout(pid)?;
            if self.parts.contains(Parts::PAGES) {
                let (entries, no_writes) = look::entries(pid, &layout, self.zero)?;
                numbering.process(process, entries.into_iter());
                protected.insert(process, no_writes);
            }
            now.insert(process, layout);
        }
        let pages = numbering.finish();
        let changed = now
            .iter()
            .filter(|(p, rows)| self.layouts.get(p) != Some(rows));
        let layouts = changed.map(|(p, rows)| (*p, rows.clone())).collect();
        let see_pages = self.parts.contains(Parts::PAGES) && pages != self.pages;
        self.layouts = now;
        let news = |(p, pages): &(&u32, &Vec<u64>)| {
            self.protected.get(p).map_or(&[][..], Vec::as_slice) != pages.as_slice()
        };
        let changed = protected.iter().filter(news);
        let more = Box::new(More {
            results,
            protected: changed.map(|(p, pages)| (*p, pages.clone())).collect(),
        });
        self.protected = protected;
        self.pages.clone_from(&pages);
        Ok(Step {
            line,
            actor,
            op: op.clone(),
            outcome,
            notified,
            layouts,
            pages: see_pages.then_some(pages),
            vm_flags: BTreeMap::new(),
            more,
        })
    }
}
