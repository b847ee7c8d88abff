//! The recording: each step of a plan runs, then the recorder looks at the processes.

use super::{ARENA, MAX_PROCESSES, RELEASE, call::request, family::Family, look, trace::Trace};
use crate::{
    addr::PAGE_SIZE,
    mm::{MapFlags, Prot},
    replay::{
        FileKind, FileSpec, Header, MapsRow, Numbering, Op, OpenMode, Outcome, PageTables, Parts,
        Script, Step,
    },
    sync::IdSource,
};
use rustix::fs::{MemfdFlags, memfd_create};
use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt, OpenOptionsExt},
    },
};

/// The operations for real processes.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The name of the script.
    pub name: String,
    /// The files, by name, filled as in every script.
    pub files: BTreeMap<String, FileSpec>,
    /// Other names under which files are open, and their modes.
    pub opens: BTreeMap<String, (String, OpenMode)>,
    /// Process and operation. Process 0 exists from the beginning. A step of a process that does
    /// not exist is skipped.
    pub steps: Vec<(u32, Op)>,
}

impl From<&Script> for Plan {
    /// Returns the operations of a script, without the outcomes, and the files that they name.
    fn from(script: &Script) -> Self {
        let steps: Vec<_> = script
            .steps
            .iter()
            .map(|step| (step.actor, step.op.clone()))
            .collect();
        let named = |name: &String| steps.iter().any(|(_, op)| op.file() == Some(name));
        let mut opens = script.header.opens.clone();
        opens.retain(|name, _| named(name));
        let mut files = script.header.files.clone();
        files.retain(|name, _| named(name) || opens.values().any(|(of, _)| of == name));
        let name = script.name.clone();
        Self {
            name,
            files,
            opens,
            steps,
        }
    }
}

/// A script as the kernel has run it.
#[derive(Clone, Debug)]
pub struct Recording {
    /// The recorded script.
    pub script: Script,
    /// The parts that can be compared with this library.
    pub parts: Parts,
}

/// The reason why a plan cannot be recorded here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unavailable {
    /// A system call or a file of `/proc` failed.
    #[error("recording failed: {0}")]
    Io(#[from] io::Error),
    /// The pages of this machine have another size.
    #[error("pages of {0} bytes, not 4096")]
    PageSize(usize),
    /// An operation that cannot be recorded: `reclaim`, a file of this library's own, a process
    /// number too high.
    #[error("step {nth}: {why}")]
    Step {
        /// The step, from 0.
        nth: usize,
        /// The reason.
        why: &'static str,
    },
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
    let known = |kind| matches!(kind, FileKind::Memfd | FileKind::Sealable | FileKind::Disk);
    if plan.files.values().any(|f| !known(f.kind)) {
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
    matches!(
        op,
        Op::Fork { .. } | Op::Exit {} | Op::MemRead { .. } | Op::MemWrite { .. }
    )
}

fn is_open(plan: &Plan, name: &str) -> bool {
    plan.files.contains_key(name) || plan.opens.contains_key(name)
}

/// Opens a file once more, in another mode.
fn reopened(file: &File, mode: OpenMode) -> io::Result<File> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let mut how = File::options();
    match mode {
        OpenMode::ReadOnly => how.read(true),
        OpenMode::WriteOnly => how.write(true),
        OpenMode::ReadWrite => how.read(true).write(true),
        OpenMode::Direct => how.read(true).write(true).custom_flags(libc::O_DIRECT),
    };
    how.open(path)
}

/// Returns a file on the file system of temporary files, if that is ext4 with blocks of a page. The
/// file has no name any more, but one after the last `@` in `/proc/PID/maps`.
fn on_disk(name: &str) -> io::Result<File> {
    static NEXT: IdSource = IdSource::starting_at(0);
    let unique = format!("emmu-{}-{}@{name}", std::process::id(), NEXT.next());
    let path = std::env::temp_dir().join(unique);
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)?;
    std::fs::remove_file(&path)?;
    let system = rustix::fs::fstatfs(&file)?;
    if system.f_type != EXT4 || u64::try_from(system.f_bsize) != Ok(PAGE_SIZE) {
        let why = format!("{} is no ext4 with 4-KiB blocks", path.display());
        return Err(io::Error::new(io::ErrorKind::Unsupported, why));
    }
    Ok(file)
}

/// `EXT4_SUPER_MAGIC`.
const EXT4: i64 = 0xef53;

struct Recorder {
    files: BTreeMap<String, File>,
    family: Family,
    trace: Option<Trace>,
    kernel: String,
    parts: Parts,
    /// The frame of the zero page, if frames are visible.
    zero: u64,
    layouts: BTreeMap<u32, Vec<MapsRow>>,
    pages: PageTables,
}

impl Recorder {
    fn new(plan: &Plan) -> Result<Self, Unavailable> {
        let mut files = BTreeMap::new();
        for (name, about) in &plan.files {
            let file = match about.kind {
                FileKind::Disk => on_disk(name)?,
                kind => {
                    let flags = match kind {
                        FileKind::Sealable => MemfdFlags::ALLOW_SEALING,
                        _ => MemfdFlags::empty(),
                    };
                    File::from(memfd_create(name, flags).map_err(io::Error::from)?)
                }
            };
            file.set_len(about.size)?;
            for page in 0..about.size.div_ceil(PAGE_SIZE) {
                let byte = (page % 200 + 1) as u8;
                file.write_all_at(&[byte], page * PAGE_SIZE)?;
            }
            files.insert(name.clone(), file);
        }
        for (name, (of, mode)) in &plan.opens {
            let file = files
                .get(of)
                .ok_or(io::Error::from(io::ErrorKind::NotFound))?;
            let again = reopened(file, *mode)?;
            files.insert(name.clone(), again);
        }
        let family = Family::start(true, files.values().map(AsRawFd::as_raw_fd))?;
        let pid = family.living().next().map_or(0, |(_, pid)| pid);
        let trace = family.has_vm.then(|| Trace::of(pid).ok()).flatten();
        let kernel = rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned();
        let mut recorder = Self {
            files,
            trace,
            kernel,
            parts: Parts::OUTCOMES,
            zero: 0,
            layouts: BTreeMap::from([(0, Vec::new())]),
            pages: PageTables::default(),
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
    fn act(&mut self, actor: u32, op: &Op) -> io::Result<Outcome> {
        match op {
            Op::Fork { child } => self.family.fork(actor, *child),
            Op::Exit {} => self.family.exit(actor),
            Op::MemRead { addr, target } => look::force(self.family.pid(*target)?, *addr, None),
            Op::MemWrite { addr, target, byte } => {
                look::force(self.family.pid(*target)?, *addr, Some(*byte))
            }
            op => {
                let file = op.file().and_then(|name| self.files.get(name));
                let request = request(op, file.map(AsRawFd::as_raw_fd));
                self.family
                    .ask(actor, request.ok_or(io::ErrorKind::Unsupported)?)
            }
        }
    }
    fn step(&mut self, line: usize, actor: u32, op: &Op) -> io::Result<Step> {
        let outcome = self.act(actor, op)?;
        let notified = match &mut self.trace {
            Some(trace) => trace.take()?,
            None => Vec::new(),
        };
        let mut now = BTreeMap::new();
        let mut numbering = Numbering::default();
        for (process, pid) in self.family.living() {
            let layout = look::layout(pid)?;
            if self.parts.contains(Parts::PAGES) {
                let entries = look::entries(pid, &layout, self.zero)?;
                numbering.process(process, entries.into_iter());
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
            more: Box::default(),
        })
    }
}
