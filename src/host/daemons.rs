//! Daemons of the kernel that a plan sets to work: `ksmd` and `khugepaged`. A recording has them
//! alone, and leaves their settings as they were.

use super::{
    alone::Alone,
    family::{Family, failed},
    plan::{Plan, Unavailable},
};
use crate::{
    mm::Advice,
    replay::{Hex, Op, Outcome},
};
use std::{fs, io, thread::sleep, time::Duration};

/// The settings of a daemon, in this folder.
struct Daemon {
    name: &'static str,
    folder: &'static str,
    /// How it works while it works for a recording: many pages at once, without a pause.
    work: &'static [(&'static str, &'static str)],
    /// How it rests before, between and after.
    rest: (&'static str, &'static str),
}

const KSMD: Daemon = Daemon {
    name: "ksmd",
    folder: "/sys/kernel/mm/ksm",
    work: &[
        ("pages_to_scan", "10000"),
        ("sleep_millisecs", "1"),
        ("smart_scan", "0"),
        ("run", "1"),
    ],
    rest: ("run", "0"),
};

const KHUGEPAGED: Daemon = Daemon {
    name: "khugepaged",
    folder: "/sys/kernel/mm/transparent_hugepage/khugepaged",
    work: &[
        ("pages_to_scan", "1000000"),
        ("alloc_sleep_millisecs", "0"),
        ("scan_sleep_millisecs", "1"),
    ],
    rest: ("scan_sleep_millisecs", "60000"),
};

/// Full scans after which nothing changes any more.
const SCANS: u64 = 4;
/// Patience with a daemon, which runs when nothing else wants to.
const PATIENCE: Duration = Duration::from_secs(60);
/// A daemon is done with its last page some time after it was told to rest.
const LAST_PAGE: Duration = Duration::from_millis(20);
const A_WHILE: Duration = Duration::from_millis(5);

/// The daemons during a recording.
pub(super) struct Daemons {
    /// The settings from before, in the order of setting them again.
    before: Vec<(String, String)>,
    /// The names of those that work for the plan.
    pub(super) names: Vec<&'static str>,
    alone: Vec<Alone>,
}

impl Daemons {
    /// Returns the daemons that a plan needs; `None` if it needs none.
    pub(super) fn of(plan: &Plan) -> Result<Option<Self>, Unavailable> {
        let needs = |is: fn(&Op) -> bool| plan.steps.iter().any(|(_, op)| is(op));
        let mut needed = Vec::new();
        if needs(|op| matches!(op, Op::Ksm { .. })) {
            needed.push(&KSMD);
        }
        if needs(|op| matches!(op, Op::Khugepaged { .. })) {
            needed.push(&KHUGEPAGED);
        }
        if needed.is_empty() {
            return Ok(None);
        }
        let mut daemons = Self {
            before: Vec::new(),
            names: needed.iter().map(|daemon| daemon.name).collect(),
            alone: Vec::new(),
        };
        for daemon in needed {
            daemons.begin(daemon).map_err(Unavailable::Daemon)?;
        }
        Ok(Some(daemons))
    }
    /// Notes the settings of a daemon, and has it rest.
    fn begin(&mut self, daemon: &Daemon) -> io::Result<()> {
        self.alone.push(Alone::with(daemon.folder)?);
        for (name, _) in daemon.work.iter().rev() {
            let path = format!("{}/{name}", daemon.folder);
            let value = fs::read_to_string(&path)?;
            self.before.push((path, value.trim().to_owned()));
        }
        if daemon.name == KSMD.name && count(daemon, "pages_sharing")? != 0 {
            // It forgets processes that have ended when it comes by.
            scans(daemon)?;
            if count(daemon, "pages_sharing")? != 0 {
                return Err(io::Error::other("others merge pages"));
            }
        }
        // Without the right to write this, the recording is not begun.
        rest(daemon)
    }
}

impl Drop for Daemons {
    fn drop(&mut self) {
        for (path, value) in self.before.drain(..) {
            let _as_before = fs::write(path, value);
        }
    }
}

/// Returns true for the operations that daemons do.
pub(super) fn is_of(op: &Op) -> bool {
    matches!(
        op,
        Op::Ksm { .. } | Op::Khugepaged { .. } | Op::DropCaches { .. }
    )
}

/// Executes such an operation.
pub(super) fn act(family: &mut Family, actor: u32, op: &Op) -> io::Result<Outcome> {
    match *op {
        Op::Ksm { mode: 2 } => {
            fs::write(format!("{}/run", KSMD.folder), "2")?;
            rest(&KSMD)?;
        }
        Op::Ksm { .. } => scans(&KSMD)?,
        Op::Khugepaged { ref advise } => {
            for &(Hex(addr), len) in advise {
                let advice = Advice::HugePage as u64;
                let args = [addr, len, advice, 0, 0, 0];
                let advised = super::call::system_call(libc::SYS_madvise, args);
                family.ask(actor, advised)?;
            }
            scans(&KHUGEPAGED)?;
        }
        Op::DropCaches { value } => fs::write("/proc/sys/vm/drop_caches", value.to_string())?,
        _ => return Ok(failed(libc::ENOSYS)),
    }
    Ok(Outcome::Ret(0))
}

fn count(daemon: &Daemon, name: &str) -> io::Result<u64> {
    let text = fs::read_to_string(format!("{}/{name}", daemon.folder))?;
    text.trim().parse().map_err(io::Error::other)
}

fn set(daemon: &Daemon, (name, value): (&str, &str)) -> io::Result<()> {
    fs::write(format!("{}/{name}", daemon.folder), value)
}

fn rest(daemon: &Daemon) -> io::Result<()> {
    set(daemon, daemon.rest)?;
    sleep(LAST_PAGE);
    Ok(())
}

/// Has a daemon scan all memory that it cares for.
fn scans(daemon: &Daemon) -> io::Result<()> {
    let end = count(daemon, "full_scans")? + SCANS;
    for &setting in daemon.work {
        set(daemon, setting)?;
    }
    let mut waited = Duration::ZERO;
    while count(daemon, "full_scans")? < end {
        if waited > PATIENCE {
            return Err(io::Error::other(format!("{} does not scan", daemon.name)));
        }
        sleep(A_WHILE);
        waited += A_WHILE;
    }
    rest(daemon)
}

/// Returns the number of a thread of the kernel.
pub(super) fn pid(name: &str) -> io::Result<i32> {
    for process in fs::read_dir("/proc")? {
        let process = process?;
        let pid = process.file_name().to_string_lossy().parse();
        let comm = fs::read_to_string(process.path().join("comm"));
        if let (Ok(pid), Ok(comm)) = (pid, comm)
            && comm.trim() == name
        {
            return Ok(pid);
        }
    }
    Err(io::ErrorKind::NotFound.into())
}
