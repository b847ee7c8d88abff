//! The processes of a recording, as the recorder sees them.

use super::{
    MAX_PROCESSES,
    executor::{Ends, Start, spawn, wait},
    protocol::{Answer, EXIT, FAILED, FORK, Request, SIGNALLED, THREAD, request_of},
};
use crate::{
    error::{Errno, Signal},
    replay::Outcome,
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    fd::OwnedFd,
    process::{Pid, PidfdFlags, pidfd_open},
};
use std::{
    collections::BTreeMap,
    io::{self, PipeReader, PipeWriter, Read, Write},
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
};

/// A living process.
struct Process {
    pid: i32,
    /// A descriptor that becomes readable at the process's end.
    end: OwnedFd,
}

/// Processes by number, each at the end of two pipes.
pub(super) struct Family {
    ask: Vec<PipeWriter>,
    answer: Vec<PipeReader>,
    living: BTreeMap<u32, Process>,
    /// The process of each thread besides the first ones.
    threads: BTreeMap<u32, u32>,
    first: i32,
    /// True if process 0 holds a virtual machine.
    pub(super) has_vm: bool,
}

impl Family {
    /// Starts process 0 with the descriptors `files`; with `kvm`, process 0 holds a virtual machine
    /// if possible.
    pub(super) fn start(kvm: bool, files: impl Iterator<Item = RawFd>) -> io::Result<Self> {
        let (mut ask, mut answer, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
        let mut ends: Ends = Ends::default();
        for end in &mut ends {
            let (request, to) = io::pipe()?;
            let (from, reply) = io::pipe()?;
            *end = (request.as_raw_fd(), reply.as_raw_fd());
            ask.push(to);
            answer.push(from);
            theirs.push((request, reply));
        }
        let pipes = ends.iter().flat_map(|&(read, write)| [read, write]);
        let mut keep: Vec<_> = pipes.chain(files).collect();
        keep.sort_unstable();
        let always = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
        let first = spawn(&Start {
            ends,
            keep: &keep,
            kvm,
            no_thp: always.is_ok_and(|word| word.contains("[always]")),
        })?;
        drop(theirs);
        let mut family = Self {
            ask,
            answer,
            living: BTreeMap::new(),
            threads: BTreeMap::new(),
            first,
            has_vm: false,
        };
        family.has_vm = family.hear(0)?[1] == 1;
        family.enter(0, first)?;
        Ok(family)
    }
    fn enter(&mut self, process: u32, pid: i32) -> io::Result<()> {
        let known = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidData)?;
        let end = pidfd_open(known, PidfdFlags::empty())?;
        self.living.insert(process, Process { pid, end });
        Ok(())
    }
    /// Returns the living processes with their numbers in the system, ascending.
    pub(super) fn living(&self) -> impl Iterator<Item = (u32, i32)> + '_ {
        self.living.iter().map(|(&n, process)| (n, process.pid))
    }
    /// Returns the process of an actor: its own number, unless it is another thread of a process.
    pub(super) fn process_of(&self, actor: u32) -> u32 {
        self.threads.get(&actor).copied().unwrap_or(actor)
    }
    /// Returns true if a process or a thread has this number.
    pub(super) fn has(&self, actor: u32) -> bool {
        self.living.contains_key(&self.process_of(actor))
    }
    /// Returns the number in the system of a living process.
    pub(super) fn pid(&self, process: u32) -> io::Result<i32> {
        Ok(self.found(process)?.pid)
    }
    /// Returns the descriptor that stands for a living process.
    pub(super) fn end(&self, process: u32) -> io::Result<&OwnedFd> {
        Ok(&self.found(process)?.end)
    }
    fn found(&self, process: u32) -> io::Result<&Process> {
        let found = self.living.get(&process);
        found.ok_or_else(|| io::Error::other(format!("no process {process} is there")))
    }
    /// Returns the pipe of a process's answers.
    pub(super) fn answers(&self, process: u32) -> BorrowedFd<'_> {
        self.answer[process as usize].as_fd()
    }
    /// Sends a request to a process, and does not wait for the answer.
    pub(super) fn tell(&mut self, process: u32, request: Request) -> io::Result<()> {
        let bytes: Vec<u8> = request.iter().flat_map(|word| word.to_ne_bytes()).collect();
        self.ask[process as usize].write_all(&bytes)
    }
    fn hear(&mut self, process: u32) -> io::Result<Answer> {
        let mut word = || {
            let mut bytes = [0; 8];
            self.answer[process as usize].read_exact(&mut bytes)?;
            Ok::<_, io::Error>(u64::from_ne_bytes(bytes))
        };
        Ok([word()?, word()?])
    }
    /// Sends a request to a process and returns the outcome.
    pub(super) fn ask(&mut self, process: u32, request: Request) -> io::Result<Outcome> {
        self.tell(process, request)?;
        self.outcome(process)
    }
    /// Sends a request to a process that must succeed.
    pub(super) fn must(&mut self, process: u32, request: Request) -> io::Result<()> {
        match self.ask(process, request)? {
            Outcome::Ret(_) => Ok(()),
            other => Err(io::Error::other(format!("a request came to {other:?}"))),
        }
    }
    /// Waits for the outcome of the request that was sent to a process.
    pub(super) fn outcome(&mut self, process: u32) -> io::Result<Outcome> {
        Ok(outcome(self.hear(process)?))
    }
    /// Forks process `child`.
    pub(super) fn fork(&mut self, process: u32, child: u32) -> io::Result<Outcome> {
        self.check_new(child)?;
        match self.ask(process, request_of(FORK, &[child.into()]))? {
            Outcome::Ret(pid) => {
                self.hear(child)?;
                let pid = i32::try_from(pid).map_err(io::Error::other)?;
                self.enter(child, pid)?;
                Ok(Outcome::Ret(u64::from(child)))
            }
            failed => Ok(failed),
        }
    }
    /// Returns an error if no process or thread of this number can be made.
    fn check_new(&self, number: u32) -> io::Result<()> {
        match number >= MAX_PROCESSES || self.has(number) {
            true => Err(io::Error::other(format!("no process {number} can be made"))),
            false => Ok(()),
        }
    }
    /// Begins thread `thread` of the process of an actor.
    pub(super) fn thread(&mut self, actor: u32, thread: u32) -> io::Result<Outcome> {
        self.check_new(thread)?;
        match self.ask(actor, request_of(THREAD, &[thread.into()]))? {
            Outcome::Ret(_) => {
                self.hear(thread)?;
                let process = self.process_of(actor);
                self.threads.insert(thread, process);
                Ok(Outcome::Ret(0))
            }
            failed => Ok(failed),
        }
    }
    /// Ends a process and waits until its memory is freed.
    pub(super) fn exit(&mut self, process: u32) -> io::Result<Outcome> {
        self.tell(process, request_of(EXIT, &[]))?;
        self.gone(process)?;
        Ok(Outcome::Ret(0))
    }
    /// Waits until a process that ends has no memory any more, and forgets it.
    pub(super) fn gone(&mut self, process: u32) -> io::Result<()> {
        self.threads.retain(|_, of| *of != process);
        if let Some(Process { end, .. }) = self.living.remove(&process) {
            poll(&mut [PollFd::new(&end, PollFlags::IN)], None)?;
        }
        Ok(())
    }
}

impl Drop for Family {
    fn drop(&mut self) {
        self.ask.clear();
        wait(self.first);
        for process in std::mem::take(&mut self.living).into_values() {
            let _ended = poll(&mut [PollFd::new(&process.end, PollFlags::IN)], None);
        }
    }
}

fn outcome([kind, value]: Answer) -> Outcome {
    match kind {
        FAILED => failed(i32::try_from(value).unwrap_or_default()),
        SIGNALLED if value == libc::SIGBUS as u64 => Outcome::Signal(Signal::Bus),
        SIGNALLED => Outcome::Signal(Signal::Segv),
        _ => Outcome::Ret(value),
    }
}

/// Returns the outcome of a call that failed with this number.
pub(super) fn failed(raw: i32) -> Outcome {
    let known = Errno::from_raw(raw);
    Outcome::Err(known.map_or_else(|| format!("E{raw}"), |e| e.to_string()))
}

/// Returns the outcome of a call of the recorder itself that failed.
pub(super) fn refused(e: &io::Error) -> io::Result<Outcome> {
    let raw = e.raw_os_error().ok_or(io::ErrorKind::InvalidData)?;
    Ok(failed(raw))
}
