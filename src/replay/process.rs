//! Operations of processes on their limits, on bytes of files, and on one another.

use super::{
    about_op::{GET_MERGE, GET_THP_DISABLE, SET_MERGE, SET_THP_DISABLE},
    came::{counted, done, failed, returned},
    hex::Hex,
    op::Op,
    resource::Resource,
    script::Outcome,
    special,
};
use crate::{
    addr::{PAGE_SIZE, VpnRange},
    ctx::CallCx,
    error::{Errno, ForkError},
    file::File,
    mm::{Advice, Merger, MlockFlags, MlockallFlags, Mm, PageState, ThpDisable},
};
use std::{collections::BTreeMap, sync::Arc};

/// Executes a call of one process that involves no file.
pub(super) fn own_call(cx: &mut CallCx<'_>, mm: &Mm, op: &Op) -> Outcome {
    match *op {
        Op::Brk { addr } => Outcome::Ret(mm.brk(cx, addr)),
        Op::Mlock2 { addr, len, flags } => {
            let flags = MlockFlags::from_bits_retain(flags);
            done(mm.mlock2(cx, addr, len, flags))
        }
        Op::Mlockall { flags } => {
            let flags = MlockallFlags::from_bits_retain(flags);
            done(mm.mlockall(cx, flags))
        }
        Op::Munlockall {} => {
            mm.munlockall(cx);
            Outcome::Ret(0)
        }
        Op::Mseal { addr, len } => done(mm.mseal(cx, addr, len)),
        Op::Mincore { addr, len } => returned(mm.mincore(cx, addr, len).map(|pages| {
            let bits = pages.iter().rev();
            bits.fold(0, |all, &there| all << 1 | u64::from(there))
        })),
        Op::Rlimit { which, bytes, over } => {
            set_limit(cx, mm, which, bytes, over);
            Outcome::Ret(0)
        }
        Op::DropIpcLock {} => {
            let mut limits = mm.limits(cx);
            limits.ipc_lock = false;
            mm.set_limits(cx, limits);
            Outcome::Ret(0)
        }
        Op::Prctl { option, a2, a3 } => prctl(cx, mm, option, (a2, a3)),
        Op::SelfProcessMadvise { ref iov, advice } => advise(cx, mm, mm, iov, advice),
        ref other => special::own_call(cx, mm, other),
    }
}

/// `prctl`; the arguments behind the third are 0.
fn prctl(cx: &mut CallCx<'_>, mm: &Mm, option: u32, (a2, a3): (u64, u64)) -> Outcome {
    const EXCEPT_ADVISED: u64 = 2;
    let refused = failed(Errno::EINVAL);
    match (option, a2, a3) {
        (SET_MERGE, on, 0) => done(mm.set_merge_all(cx, on != 0)),
        (GET_MERGE, 0, 0) => Outcome::Ret(mm.merges_all(cx).into()),
        (GET_THP_DISABLE, 0, 0) => Outcome::Ret(match mm.thp_disable(cx) {
            ThpDisable::No => 0,
            ThpDisable::ExceptAdvised => 1 | EXCEPT_ADVISED,
            ThpDisable::Completely => 1,
        }),
        (SET_THP_DISABLE, on, flags) => {
            let setting = match (on != 0, flags) {
                (false, 0) => ThpDisable::No,
                (true, 0) => ThpDisable::Completely,
                (true, EXCEPT_ADVISED) => ThpDisable::ExceptAdvised,
                _ => return refused,
            };
            mm.set_thp_disable(cx, setting);
            Outcome::Ret(0)
        }
        _ => refused,
    }
}

fn set_limit(cx: &mut CallCx<'_>, mm: &Mm, which: Resource, bytes: Option<u64>, over: bool) {
    let (total, locked) = mm.sizes(cx);
    let used = match which {
        _ if !over => 0,
        Resource::As => total * PAGE_SIZE,
        Resource::Memlock => locked * PAGE_SIZE,
        Resource::Data | Resource::Stack => unreachable!("refused by the parser"),
    };
    let bytes = bytes.map_or(u64::MAX, |bytes| bytes.saturating_add(used));
    let mut limits = mm.limits(cx);
    match which {
        Resource::As => limits.address_space = bytes,
        Resource::Data => limits.data = bytes,
        Resource::Stack => limits.stack = bytes,
        Resource::Memlock => limits.memlock = bytes,
    }
    mm.set_limits(cx, limits);
}

/// Forks a process. Pages of the recorder's own program are shared by that, new ones among them:
/// its next store to one of these moved all pages to their lists.
pub(super) fn fork(cx: &mut CallCx<'_>, mm: &Mm) -> Result<Arc<Mm>, ForkError> {
    let child = mm.fork(cx)?;
    child.machine().mem().drain_batches();
    Ok(child)
}

type Processes = BTreeMap<u32, Arc<Mm>>;

/// Merges equal pages and returns the number of freed frames.
pub(super) fn merge(cx: &mut CallCx<'_>, processes: &Processes, arena: VpnRange) -> Outcome {
    let mut pages = Vec::new();
    for mm in processes.values() {
        for (at, state) in mm.pagemap(cx, arena) {
            if matches!(state, PageState::Anon(_)) {
                pages.push((&**mm, at.addr()));
            }
        }
    }
    let machine = processes.values().next().map(|mm| mm.machine());
    Outcome::Ret(machine.map_or(0, |machine| machine.merge_same_pages(cx, &pages) as u64))
}

/// Scans as often as a recording did, four times: after that nothing changes.
pub(super) fn merging(
    cx: &mut CallCx<'_>,
    merger: &mut Merger,
    processes: &Processes,
    mode: u8,
) -> Outcome {
    let spaces: Vec<&Mm> = processes.values().map(|mm| &**mm).collect();
    if mode == 2 {
        merger.unmerge_all(cx, &spaces);
    } else {
        for _ in 0..4 {
            merger.scan(cx, &spaces);
        }
    }
    Outcome::Ret(0)
}

/// Executes an operation of one process on the memory of another.
pub(super) fn to_other(cx: &mut CallCx<'_>, mm: &Mm, other: &Mm, op: &Op) -> Outcome {
    let bytes = |len: u64| usize::try_from(len).unwrap_or(usize::MAX);
    match *op {
        // A length is signed (`copy_iovec_from_user`).
        Op::PvmRead { len, .. } | Op::PvmWrite { len, .. } if i64::try_from(len).is_err() => {
            failed(Errno::EINVAL)
        }
        Op::PvmRead {
            addr, len, remote, ..
        } => counted(mm.copy_from(cx, addr, (other, remote), bytes(len))),
        Op::PvmWrite {
            addr, len, remote, ..
        } => counted(mm.copy_to(cx, addr, (other, remote), bytes(len))),
        Op::ProcessMadvise { flags, .. } if flags != 0 => failed(Errno::EINVAL),
        Op::ProcessMadvise {
            ref iov, advice, ..
        } => advise(cx, mm, other, iov, advice),
        Op::MemRead { addr, .. } => {
            let mut byte = [0];
            let read = other.read_remote(cx, addr, &mut byte);
            returned(read.map(|_| byte[0].into()))
        }
        Op::MemWrite { addr, byte, .. } => counted(other.write_remote(cx, addr, &[byte])),
        ref other => unreachable!("{other:?} is not of two processes"),
    }
}

fn advise(cx: &mut CallCx<'_>, mm: &Mm, other: &Mm, iov: &[(Hex, u64)], advice: Advice) -> Outcome {
    let ranges: Vec<_> = iov.iter().map(|&(Hex(addr), len)| (addr, len)).collect();
    returned(mm.process_madvise(cx, other, &ranges, advice))
}

/// Moves bytes between a file and the memory of a process.
pub(super) fn with_file(cx: &mut CallCx<'_>, mm: &Mm, file: &File, op: &Op) -> Outcome {
    let bytes = |len: u64| usize::try_from(len).unwrap_or(usize::MAX);
    counted(match *op {
        Op::ReadInto { off, addr, len, .. } | Op::DirectRead { off, addr, len, .. } => {
            mm.read_file(cx, (file, off), addr, bytes(len))
        }
        Op::WriteFrom { off, addr, len, .. } | Op::DirectWriteFrom { off, addr, len, .. } => {
            mm.write_file(cx, (file, off), addr, bytes(len))
        }
        ref other => unreachable!("{other:?} moves no bytes"),
    })
}
