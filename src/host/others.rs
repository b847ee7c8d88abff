//! Operations of one process on another: copies, advice, and the end of one that is killed.

use super::{
    family::{Family, refused},
    own_calls::WORDS,
    protocol::{ADVISE, COPY, PUT, request_of},
    raw::{reap, stopped_at_its_end},
};
use crate::{
    mm::Advice,
    replay::{Hex, Op, Outcome},
};
use std::io;

/// Most ranges of an advice to a process.
pub(super) const MOST_RANGES: usize = WORDS / 2;
/// The words that a request puts down.
const AT_ONCE: usize = 6;

/// Returns true for the operations that this executes.
pub(super) fn is_of(op: &Op) -> bool {
    matches!(
        op,
        Op::PvmRead { .. }
            | Op::PvmWrite { .. }
            | Op::ProcessMadvise { .. }
            | Op::SelfProcessMadvise { .. }
            | Op::ExitAndReap { .. }
    )
}

/// Executes such an operation.
pub(super) fn act(family: &mut Family, actor: u32, op: &Op) -> io::Result<Outcome> {
    match *op {
        Op::PvmRead {
            addr,
            len,
            target,
            remote,
        } => {
            let call = libc::SYS_process_vm_readv as u64;
            copy(family, actor, (call, target), [addr, len, remote])
        }
        Op::PvmWrite {
            addr,
            len,
            target,
            remote,
        } => {
            let call = libc::SYS_process_vm_writev as u64;
            copy(family, actor, (call, target), [addr, len, remote])
        }
        Op::ProcessMadvise {
            target,
            ref iov,
            advice,
            flags,
        } => advise(family, (actor, target), iov, (advice, flags)),
        Op::SelfProcessMadvise { ref iov, advice } => {
            let own = family.process_of(actor);
            advise(family, (actor, own), iov, (advice, 0))
        }
        Op::ExitAndReap { target } => exit_and_reap(family, target),
        _ => Err(io::ErrorKind::Unsupported.into()),
    }
}

fn copy(
    family: &mut Family,
    actor: u32,
    (call, target): (u64, u32),
    [addr, len, remote]: [u64; 3],
) -> io::Result<Outcome> {
    let pid = family.pid(target)? as u64;
    family.ask(actor, request_of(COPY, &[call, pid, addr, len, remote]))
}

fn advise(
    family: &mut Family,
    (actor, target): (u32, u32),
    ranges: &[(Hex, u64)],
    (advice, flags): (Advice, u32),
) -> io::Result<Outcome> {
    let words = ranges.iter().flat_map(|&(Hex(addr), len)| [addr, len]);
    let words: Vec<u64> = words.collect();
    for (nth, some) in words.chunks(AT_ONCE).enumerate() {
        let mut all = vec![(nth * AT_ONCE) as u64];
        all.extend(some);
        family.ask(actor, request_of(PUT, &all))?;
    }
    let (pid, n) = (family.pid(target)? as u64, ranges.len() as u64);
    let request = request_of(ADVISE, &[pid, n, advice as u64, flags.into()]);
    family.ask(actor, request)
}

/// Kills a process and takes its memory when it is about to end.
fn exit_and_reap(family: &mut Family, target: u32) -> io::Result<Outcome> {
    let stopped = stopped_at_its_end(family.pid(target)?)?;
    let reaped = reap(family.end(target)?);
    drop(stopped);
    family.gone(target)?;
    reaped.map_or_else(|e| refused(&e), |()| Ok(Outcome::Ret(0)))
}
