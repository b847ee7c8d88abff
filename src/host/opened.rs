//! Files that a plan opens by their paths, and names for descriptors that are not open.

use super::{call::system_call, family::Family, plan::Plan};
use crate::replay::{Op, OpenPath, Outcome};
use std::{
    collections::BTreeMap,
    ffi::CString,
    fs::File,
    io,
    os::fd::{AsRawFd, RawFd},
};

/// A file that a step opens, and its path as the kernel reads it. The processes are forks of this
/// one: the path lies at the same address there.
struct ByPath {
    path: CString,
    /// `None`: it cannot be opened.
    file: Option<File>,
}

/// The files of the steps that open one.
#[derive(Default)]
pub(super) struct Opened {
    /// In the order of the steps.
    files: Vec<ByPath>,
    /// The next step that opens a file.
    next: usize,
    /// The descriptors of the names so far.
    named: BTreeMap<String, i64>,
}

impl Opened {
    /// Opens the files: a process has them all from the beginning, as it must map what another one
    /// has opened.
    pub(super) fn of(plan: &Plan) -> io::Result<Self> {
        let files = plan.steps.iter().filter_map(|(_, op)| match op {
            Op::Open(of) => Some(by_path(of)),
            _ => None,
        });
        Ok(Self {
            files: files.collect::<io::Result<_>>()?,
            ..Self::default()
        })
    }
    /// Returns the descriptors that the processes need.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        let files = self
            .files
            .iter()
            .filter_map(|by_path| by_path.file.as_ref());
        files.map(AsRawFd::as_raw_fd)
    }
    /// Returns the descriptor of a name.
    pub(super) fn named(&self, name: &str) -> Option<i64> {
        self.named.get(name).copied()
    }
    /// Returns true if a plan can have this file: what may be written to it is the plan's alone.
    pub(super) fn can_be(of: &OpenPath) -> bool {
        let keeps_nothing = matches!(of.path.as_str(), "/dev/zero" | "/dev/null");
        of.path.starts_with('/')
            && !of.path.contains(['\0', '@'])
            && (of.mode == 0 || of.mode <= 2 && keeps_nothing)
    }
    /// Opens a file in a process, as the outcome, and names the one that all have.
    pub(super) fn open(
        &mut self,
        family: &mut Family,
        actor: u32,
        of: &OpenPath,
    ) -> io::Result<Outcome> {
        let known = self.files.get(self.next).ok_or(io::ErrorKind::NotFound)?;
        self.next += 1;
        let path = known.path.as_ptr() as u64;
        let open = system_call(libc::SYS_open, [path, of.mode.into(), 0, 0, 0, 0]);
        let fd = match family.ask(actor, open)? {
            Outcome::Ret(fd) => fd,
            failed => return Ok(failed),
        };
        family.ask(actor, system_call(libc::SYS_close, [fd, 0, 0, 0, 0, 0]))?;
        let file = known.file.as_ref().ok_or(io::ErrorKind::NotFound)?;
        self.named.insert(of.name.clone(), file.as_raw_fd().into());
        Ok(Outcome::Ret(0))
    }
    /// Names a descriptor that is not open.
    pub(super) fn bad(&mut self, name: &str, fd: i64) -> Outcome {
        self.named.insert(name.to_owned(), fd);
        Outcome::Ret(0)
    }
}

fn by_path(of: &OpenPath) -> io::Result<ByPath> {
    let (reads, writes) = (of.mode & 3 != 1, of.mode & 3 != 0);
    let file = File::options().read(reads).write(writes).open(&of.path);
    Ok(ByPath {
        path: CString::new(of.path.as_str())?,
        file: file.ok(),
    })
}
