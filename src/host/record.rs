//! The recording: each step of a plan runs, then the recorder looks at the processes.

use super::{
    ARENA, RELEASE,
    call::request,
    daemons::{self, Daemons},
    family::Family,
    files, limits, look,
    opened::Opened,
    others,
    plan::{Plan, Unavailable},
    plan_check::check,
    pool::Pool,
    protocol::{BEGIN_HEAP, request_of},
    special::Special,
    trace::Trace,
    userfaults::Userfaults,
};
use crate::{
    addr::PAGE_SIZE,
    mm::{MapFlags, Prot},
    replay::{
        Header, MapsRow, More, Numbering, Op, Outcome, PageTables, Parts, Results, Script, Step,
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
    let daemons = Daemons::of(plan)?;
    let mut recorder = Recorder::new(plan, daemons.as_ref())?;
    let mut steps = Vec::new();
    for (actor, op) in &plan.steps {
        if recorder.family.has(*actor) {
            steps.push(recorder.step(steps.len() + 2, *actor, op)?);
        }
    }
    let mut header = Header::new(&plan.name, 0, &recorder.kernel, ARENA, plan.files.clone());
    header.swap = (!has_swap()).then_some(0);
    header.opens.clone_from(&plan.opens);
    if let Some(start) = plan.heap {
        header = header.with_heap(start);
    }
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

struct Recorder {
    files: BTreeMap<String, File>,
    opened: Opened,
    special: Special,
    userfaults: Userfaults,
    family: Family,
    trace: Option<Trace>,
    kernel: String,
    parts: Parts,
    /// The frame of the zero page, if frames are visible.
    zero: u64,
    layouts: BTreeMap<u32, Vec<MapsRow>>,
    flags: BTreeMap<u32, Vec<String>>,
    pages: PageTables,
    protected: BTreeMap<u32, Vec<u64>>,
}

impl Recorder {
    fn new(plan: &Plan, daemons: Option<&Daemons>) -> Result<Self, Unavailable> {
        let files = files::open(plan)?;
        let opened = Opened::of(plan)?;
        let special = Special::of(plan)?;
        let all = files.values().map(AsRawFd::as_raw_fd);
        let all = all.chain(special.descriptors()).chain(opened.descriptors());
        let mut family = Family::start(true, all)?;
        if let Some(start) = plan.heap {
            family.must(0, request_of(BEGIN_HEAP, &[start]))?;
        }
        let pid = family.living().next().map_or(0, |(_, pid)| pid);
        let helpers = daemons.map_or_else(Vec::new, |daemons| daemons.names.clone());
        let trace = family
            .has_vm
            .then(|| Trace::of(pid, helpers).ok())
            .flatten();
        let kernel = rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned();
        let mut recorder = Self {
            files,
            opened,
            special,
            userfaults: Userfaults::default(),
            trace,
            kernel,
            parts: Parts::OUTCOMES,
            zero: 0,
            layouts: BTreeMap::from([(0, Vec::new())]),
            flags: BTreeMap::new(),
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
            self.parts |= Parts::LAYOUTS | Parts::FLAGS;
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
        let family = &mut self.family;
        let outcome = match *op {
            Op::Fork { child } => family.fork(actor, child),
            Op::Exit {} => family.exit(actor),
            Op::Thread { thread } => family.thread(actor, thread),
            Op::MemRead { addr, target } => look::force(family.pid(target)?, addr, None),
            Op::MemWrite { addr, target, byte } => {
                look::force(family.pid(target)?, addr, Some(byte))
            }
            Op::Rlimit { which, bytes, over } => {
                let process = family.process_of(actor);
                limits::set(family.pid(process)?, which, (bytes, over))
            }
            Op::Open(ref of) => self.opened.open(family, actor, of),
            Op::BadFd { ref name, fd } => Ok(self.opened.bad(name, fd)),
            Op::DirectWrite {
                ref file,
                off,
                len,
                byte,
            } => {
                let file = self.files.get(file).ok_or(io::ErrorKind::NotFound)?;
                files::write(file, (off, len), byte)
            }
            ref op if others::is_of(op) => others::act(family, actor, op),
            ref op if daemons::is_of(op) => daemons::act(family, actor, op),
            ref op if Special::is_of(op) => self.special.act(family, actor, op),
            ref op => {
                let fd = op.file().and_then(|name| self.descriptor(name));
                let request = request(op, fd).ok_or(io::ErrorKind::Unsupported)?;
                self.family.ask(actor, request)
            }
        };
        Ok((outcome?, Results::default()))
    }
    /// Returns the descriptor that a name stands for.
    fn descriptor(&self, name: &str) -> Option<i64> {
        let file = self.files.get(name).map(|file| file.as_raw_fd().into());
        file.or_else(|| self.opened.named(name))
    }
    fn step(&mut self, line: usize, actor: u32, op: &Op) -> io::Result<Step> {
        let (outcome, results) = self.act(actor, op)?;
        let notified = match &mut self.trace {
            Some(trace) => trace.take()?,
            None => Vec::new(),
        };
        let mut step = Step {
            line,
            actor,
            op: op.clone(),
            outcome,
            notified,
            layouts: BTreeMap::new(),
            pages: None,
            vm_flags: BTreeMap::new(),
            more: Box::new(More {
                results,
                protected: BTreeMap::new(),
            }),
        };
        self.look(&mut step)?;
        Ok(step)
    }
    /// Looks at the processes, and tells what is new.
    fn look(&mut self, step: &mut Step) -> io::Result<()> {
        let (mut layouts, mut flags) = (BTreeMap::new(), BTreeMap::new());
        let mut numbering = Numbering::default();
        let mut protected = BTreeMap::new();
        for (process, pid) in self.family.living() {
            let layout = look::layout(pid)?;
            if self.parts.contains(Parts::PAGES) {
                let (entries, no_writes) = look::entries(pid, &layout, self.zero)?;
                numbering.process(process, entries.into_iter());
                protected.insert(process, no_writes);
            }
            let before = self.flags.get(&process).cloned();
            let same = self.layouts.get(&process) == Some(&layout) && changes_no_vma(&step.op);
            let letters = match before.filter(|_| same) {
                Some(letters) => letters,
                None => look::flags(pid)?,
            };
            layouts.insert(process, layout);
            flags.insert(process, letters);
        }
        let pages = numbering.finish();
        // A replay looks at no pages after a process was killed, until it is told of them.
        let tell = pages != self.pages || matches!(step.op, Op::ExitAndReap { .. });
        if self.parts.contains(Parts::PAGES) && tell {
            step.pages = Some(pages.clone());
        }
        step.layouts = news(&self.layouts, &layouts);
        step.vm_flags = news(&self.flags, &flags);
        step.more.protected = news(&self.protected, &protected);
        // A new process without such pages has no news.
        let had = |process: &u32| self.protected.contains_key(process);
        let protected_now = &mut step.more.protected;
        protected_now.retain(|process, pages| !pages.is_empty() || had(process));
        (self.layouts, self.flags) = (layouts, flags);
        (self.protected, self.pages) = (protected, pages);
        Ok(())
    }
}

/// Returns true for an operation that leaves VMAs as they are, unless a stack grows.
fn changes_no_vma(op: &Op) -> bool {
    matches!(
        op,
        Op::Load { .. }
            | Op::Store { .. }
            | Op::Exec { .. }
            | Op::Mincore { .. }
            | Op::Msync { .. }
            | Op::MemRead { .. }
            | Op::MemWrite { .. }
            | Op::PvmRead { .. }
            | Op::PvmWrite { .. }
            | Op::Rlimit { .. }
            | Op::Ksm { .. }
            | Op::Exit {}
    ) || op.file().is_some() && !matches!(op, Op::Mmap { .. })
}

/// Returns the entries that are not as before.
fn news<T: Clone + PartialEq>(
    before: &BTreeMap<u32, Vec<T>>,
    now: &BTreeMap<u32, Vec<T>>,
) -> BTreeMap<u32, Vec<T>> {
    let is_new = |(process, list): &(&u32, &Vec<T>)| before.get(process) != Some(list);
    let new = now.iter().filter(is_new);
    new.map(|(process, list)| (*process, list.clone()))
        .collect()
}
