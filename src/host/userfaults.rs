//! The userfaultfds of recorded processes, and their pagemaps: the recorder is the handler.

use super::{
    call::{request, system_call},
    family::{Family, failed, refused},
    protocol::{MOVE_PAGES, MOVED, Request, request_of},
    raw::{on_userfaultfd, scan},
};
use crate::{
    mm::Userfault,
    replay::{
        Answer, Answered, Copy, FaultLoad, FaultStore, Fill, Hex, Moded, Move, Op, Outcome, Part,
        Resolve, Results, ScanOf,
    },
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::{AsFd, BorrowedFd, OwnedFd},
    io::read,
    process::{PidfdGetfdFlags, pidfd_getfd},
};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
};

/// A userfaultfd: the number that its process has, and the recorder's own descriptor.
struct Open {
    number: u64,
    fd: OwnedFd,
}

/// The userfaultfds of a recording, by the process that made each.
#[derive(Default)]
pub(super) struct Userfaults {
    open: BTreeMap<u32, Open>,
}

type Done = (Outcome, Results);

/// Numbers of calls.
const API: u64 = 0xc018_aa3f;
const REGISTER: u64 = 0xc020_aa00;
const UNREGISTER: u64 = 0x8010_aa01;
const WAKE: u64 = 0x8010_aa02;
const COPY: u64 = 0xc028_aa03;
const ZEROPAGE: u64 = 0xc020_aa04;
const WRITEPROTECT: u64 = 0xc018_aa06;
const CONTINUE: u64 = 0xc020_aa07;
const POISON: u64 = 0xc020_aa08;

fn only(outcome: Outcome) -> Done {
    (outcome, Results::default())
}

/// Returns the outcome of a call of the recorder that returns 0.
fn came(result: io::Result<()>) -> io::Result<Outcome> {
    result.map_or_else(|e| refused(&e), |()| Ok(Outcome::Ret(0)))
}

impl Userfaults {
    /// Executes an operation on a userfaultfd or a pagemap.
    pub(super) fn act(&mut self, family: &mut Family, thread: u32, op: &Op) -> io::Result<Done> {
        let actor = family.process_of(thread);
        match op {
            Op::Uffd(how) => self
                .make(family, actor, how.features.unwrap_or(0))
                .map(only),
            Op::UffdClose {} => {
                let Some(open) = self.open.remove(&actor) else {
                    return Ok(only(failed(libc::EBADF)));
                };
                drop(open.fd);
                let close = system_call(libc::SYS_close, [open.number, 0, 0, 0, 0, 0]);
                family.ask(actor, close).map(only)
            }
            Op::PagemapScan(of) => scanned(family, of),
            Op::ClearRefs(clear) => {
                let path = format!("/proc/{}/clear_refs", family.pid(clear.target)?);
                came(fs::write(path, clear.value.to_string())).map(only)
            }
            Op::FaultLoad(FaultLoad { of, resolve, .. })
            | Op::FaultStore(FaultStore { of, resolve, .. }) => {
                let access = request(op, None).ok_or(io::ErrorKind::Unsupported)?;
                self.wait(family, (thread, access), (of.unwrap_or(actor), resolve))
            }
            other => {
                let call = Answer::of(other).ok_or(io::ErrorKind::Unsupported)?;
                self.answer(family, actor, &call)
            }
        }
    }
    fn make(&mut self, family: &mut Family, actor: u32, features: u64) -> io::Result<Outcome> {
        let flags = (libc::O_CLOEXEC | libc::O_NONBLOCK) as u64;
        let make = system_call(libc::SYS_userfaultfd, [flags, 0, 0, 0, 0, 0]);
        let number = match family.ask(actor, make)? {
            Outcome::Ret(number) => number,
            refused => {
                let why =
                    format!("userfaultfd {refused}: it takes a kernel with it, and privileges");
                return Err(io::Error::new(io::ErrorKind::Unsupported, why));
            }
        };
        let theirs = i32::try_from(number).map_err(io::Error::other)?;
        let fd = pidfd_getfd(family.end(actor)?, theirs, PidfdGetfdFlags::empty())?;
        let agreed = on_userfaultfd(fd.as_fd(), API, &mut [Userfault::VERSION, features, 0]);
        self.open.insert(actor, Open { number, fd });
        came(agreed)
    }
    /// Makes an access, and answers each message as the plan says.
    fn wait(
        &self,
        family: &mut Family,
        (actor, request): (u32, Request),
        (of, resolve): (u32, &[Resolve]),
    ) -> io::Result<Done> {
        let mut events = Vec::new();
        let mut answers = resolve.iter();
        family.tell(actor, request)?;
        while let Some(message) = self.message(family, actor, of)? {
            let Some(Resolve(call)) = answers.next() else {
                return Err(io::Error::other("a message without an answer in the plan"));
            };
            let (outcome, results) = self.answer(family, of, call)?;
            let [kind, flags, addr, _] = message;
            let answered = Answered::of(outcome, &results);
            events.push((kind as u8, flags, Hex(addr), answered));
        }
        let results = Results {
            events: Some(events),
            ..Results::default()
        };
        Ok((family.outcome(actor)?, results))
    }
    /// Waits for a message of a userfaultfd; `None`: the access has come to its end.
    fn message(&self, family: &Family, actor: u32, of: u32) -> io::Result<Option<[u64; 4]>> {
        let patience = Timespec {
            tv_sec: 5,
            tv_nsec: 0,
        };
        loop {
            let mut fds = vec![PollFd::from_borrowed_fd(
                family.answers(actor),
                PollFlags::IN,
            )];
            let open = self.open.get(&of);
            fds.extend(open.map(|open| PollFd::new(&open.fd, PollFlags::IN)));
            if poll(&mut fds, Some(&patience))? == 0 {
                return Err(io::Error::other("an access hangs that nothing answers"));
            }
            let told = fds
                .get(1)
                .is_some_and(|fd| fd.revents().contains(PollFlags::IN));
            let (Some(open), true) = (open, told) else {
                return Ok(None);
            };
            let mut message = [0; 32];
            match read(&open.fd, &mut message) {
                Ok(32) => {
                    let words = message.as_chunks::<8>().0;
                    let word = |n: usize| words.get(n).map_or(0, |w| u64::from_ne_bytes(*w));
                    return Ok(Some([word(0), word(1), word(2), word(3)]));
                }
                Err(rustix::io::Errno::AGAIN) => {}
                other => return Err(io::Error::other(format!("a message: {other:?}"))),
            }
        }
    }
    /// Makes a call on the userfaultfd that process `owner` made.
    fn answer(&self, family: &mut Family, owner: u32, call: &Answer) -> io::Result<Done> {
        let Some(open) = self.open.get(&owner) else {
            return Ok(only(failed(libc::EBADF)));
        };
        let fd = open.fd.as_fd();
        let range = |number, &Part { addr, len }: &Part| {
            came(on_userfaultfd(fd, number, &mut [addr, len])).map(only)
        };
        match call {
            Answer::UffdUnregister(part) => range(UNREGISTER, part),
            Answer::UffdWake(part) => range(WAKE, part),
            &Answer::UffdRegister(Moded { addr, len, mode }) => {
                came(on_userfaultfd(fd, REGISTER, &mut [addr, len, mode, 0])).map(only)
            }
            &Answer::UffdWriteprotect(Moded { addr, len, mode }) => {
                came(on_userfaultfd(fd, WRITEPROTECT, &mut [addr, len, mode])).map(only)
            }
            Answer::UffdMove(pages) => move_pages(family, (owner, open.number), pages),
            Answer::UffdCopy(copy) => copied(fd, copy),
            Answer::UffdZeropage(fill) => filled(fd, ZEROPAGE, fill),
            Answer::UffdContinue(fill) => filled(fd, CONTINUE, fill),
            Answer::UffdPoison(fill) => {
                let (outcome, _) = filled(fd, POISON, fill)?;
                Ok(only(outcome))
            }
        }
    }
}

/// Moves pages, which only the process itself can do.
fn move_pages(family: &mut Family, (owner, number): (u32, u64), of: &Move) -> io::Result<Done> {
    let mode = of.mode.unwrap_or(0);
    let request = request_of(MOVE_PAGES, &[number, of.addr, of.src, of.len, mode]);
    let outcome = family.ask(owner, request)?;
    let moved = match family.ask(owner, request_of(MOVED, &[]))? {
        Outcome::Ret(moved) => Some(moved.cast_signed()),
        _ => None,
    };
    let results = Results {
        moved,
        ..Results::default()
    };
    Ok((outcome, results))
}

/// Copies pages of one byte.
fn copied(fd: BorrowedFd<'_>, of: &Copy) -> io::Result<Done> {
    let bytes = usize::try_from(of.len.min(Copy::MOST)).map_err(io::Error::other)?;
    let source = vec![of.byte; bytes];
    let mode = of.mode.unwrap_or(0);
    let mut words = [of.addr, source.as_ptr() as u64, of.len, mode, 0];
    let outcome = came(on_userfaultfd(fd, COPY, &mut words))?;
    let results = Results {
        copied: Some(words[4].cast_signed()),
        ..Results::default()
    };
    Ok((outcome, results))
}

/// Fills pages without a source.
fn filled(fd: BorrowedFd<'_>, number: u64, of: &Fill) -> io::Result<Done> {
    let mut words = [of.addr, of.len, of.mode.unwrap_or(0), 0];
    let outcome = came(on_userfaultfd(fd, number, &mut words))?;
    let results = Results {
        done: Some(words[3].cast_signed()),
        ..Results::default()
    };
    Ok((outcome, results))
}

/// Scans the pagemap of a process.
fn scanned(family: &Family, of: &ScanOf) -> io::Result<Done> {
    let path = format!("/proc/{}/pagemap", family.pid(of.target)?);
    let pagemap = File::options().read(true).write(true).open(path)?;
    let (inverted, any_of) = (of.inverted.unwrap_or(0), of.anyof.unwrap_or(0));
    let reported = of.reported();
    let mut words = [
        0, of.flags, of.start, of.end, 0, 0, 0, 0, inverted, of.mask, any_of, reported,
    ];
    match scan(&pagemap, &mut words, ScanOf::REGIONS) {
        Ok(found) => {
            let regions = found
                .iter()
                .map(|&[start, end, what]| (Hex(start), Hex(end), what));
            let results = Results {
                regions: Some(regions.collect()),
                ..Results::default()
            };
            Ok((Outcome::Ret(found.len() as u64), results))
        }
        Err(e) => refused(&e).map(only),
    }
}
