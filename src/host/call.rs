//! Operations as requests to a process.

use super::{
    executor::{BYTES, FIRST_NODE},
    protocol::{
        CALL, DRAIN, DROP_IPC_LOCK, EXEC, LOAD, MINCORE, PIN, READ_BYTE, Request, SPLICE, STORE,
        UNPIN, request_of,
    },
};
use crate::{
    mm::MapFlags,
    replay::{FaultLoad, FaultStore, Mbind, Op, PkeyMprotect},
};

/// Returns the request for an operation on memory or on a file; `fd` is the file that the operation
/// names.
pub(super) fn request(op: &Op, fd: Option<i64>) -> Option<Request> {
    let fd = fd.map_or(u64::MAX, |fd| fd as u64);
    match *op {
        Op::Mmap { .. } => map(op, fd),
        Op::Mremap(m) => {
            let flags = u64::from(m.flags.bits());
            let args = [m.addr, m.old_len, m.new_len, flags, m.new_addr, 0];
            call(libc::SYS_mremap, args)
        }
        Op::Munmap { addr, len } => call(libc::SYS_munmap, [addr, len, 0, 0, 0, 0]),
        Op::Mprotect { addr, len, prot } => {
            call(libc::SYS_mprotect, [addr, len, prot.bits().into(), 0, 0, 0])
        }
        Op::RemapFilePages { addr, len, pgoff } => {
            call(libc::SYS_remap_file_pages, [addr, len, 0, pgoff, 0, 0])
        }
        Op::Madvise { addr, len, advice } => {
            call(libc::SYS_madvise, [addr, len, advice as u64, 0, 0, 0])
        }
        Op::Msync { addr, len, flags } => {
            call(libc::SYS_msync, [addr, len, flags.bits().into(), 0, 0, 0])
        }
        Op::Mlock { addr, len } => call(libc::SYS_mlock, [addr, len, 0, 0, 0, 0]),
        Op::Munlock { addr, len } => call(libc::SYS_munlock, [addr, len, 0, 0, 0, 0]),
        Op::Mlock2 { addr, len, flags } => {
            call(libc::SYS_mlock2, [addr, len, flags.into(), 0, 0, 0])
        }
        Op::Mseal { addr, len } => call(libc::SYS_mseal, [addr, len, 0, 0, 0, 0]),
        Op::Load { addr } | Op::FaultLoad(FaultLoad { addr, .. }) => {
            Some(request_of(LOAD, &[addr]))
        }
        Op::Exec { addr } => Some(request_of(EXEC, &[addr])),
        Op::Shmdt { addr } => call(libc::SYS_shmdt, [addr, 0, 0, 0, 0, 0]),
        Op::Mlockall { flags } => call(libc::SYS_mlockall, [flags.into(), 0, 0, 0, 0, 0]),
        Op::Munlockall {} => call(libc::SYS_munlockall, [0; 6]),
        Op::Brk { addr } => call(libc::SYS_brk, [addr, 0, 0, 0, 0, 0]),
        Op::Mincore { addr, len } => Some(request_of(MINCORE, &[addr, len])),
        Op::DropIpcLock {} => Some(request_of(DROP_IPC_LOCK, &[])),
        Op::Pin { addr, len } => Some(request_of(PIN, &[addr, len])),
        Op::Unpin {} => Some(request_of(UNPIN, &[])),
        Op::Vmsplice { addr, len } => Some(request_of(SPLICE, &[addr, len])),
        Op::Drain {} => Some(request_of(DRAIN, &[])),
        Op::Store { addr, byte } | Op::FaultStore(FaultStore { addr, byte, .. }) => {
            Some(request_of(STORE, &[addr, byte.into()]))
        }
        ref other => policy(other).or_else(|| on_file(other, fd)),
    }
}

/// Returns the request for an operation on keys, policies or settings. Requests for keys are left
/// out: the answer depends on the processor.
fn policy(op: &Op) -> Option<Request> {
    match *op {
        Op::PkeyMprotect(PkeyMprotect {
            addr,
            len,
            prot,
            pkey: -1,
        }) => call(
            libc::SYS_pkey_mprotect,
            [addr, len, prot.bits().into(), u64::MAX, 0, 0],
        ),
        Op::Mbind(Mbind {
            addr,
            len,
            mode,
            flags,
        }) => {
            let (nodes, bits) = match mode {
                0 => (0, 0),
                _ => (&raw const FIRST_NODE as u64, 2),
            };
            call(
                libc::SYS_mbind,
                [addr, len, mode.into(), nodes, bits, flags.into()],
            )
        }
        Op::Prctl { option, a2, a3 } => call(libc::SYS_prctl, [option.into(), a2, a3, 0, 0, 0]),
        _ => None,
    }
}

fn map(op: &Op, fd: u64) -> Option<Request> {
    match *op {
        Op::Mmap {
            addr,
            len,
            prot,
            flags,
            off,
            ref file,
        } => {
            let anonymous = match file {
                None => MapFlags::ANONYMOUS,
                Some(_) => MapFlags::empty(),
            };
            let flags = u64::from((flags | anonymous).bits());
            call(
                libc::SYS_mmap,
                [addr, len, prot.bits().into(), flags, fd, off],
            )
        }
        _ => None,
    }
}

/// Returns the request for an operation on a file itself, or between a file and memory.
fn on_file(op: &Op, fd: u64) -> Option<Request> {
    match *op {
        Op::ReadInto { off, addr, len, .. } | Op::DirectRead { off, addr, len, .. } => {
            call(libc::SYS_pread64, [fd, addr, len, off, 0, 0])
        }
        Op::WriteFrom { off, addr, len, .. } | Op::DirectWriteFrom { off, addr, len, .. } => {
            call(libc::SYS_pwrite64, [fd, addr, len, off, 0, 0])
        }
        Op::Pread { off, .. } => Some(request_of(READ_BYTE, &[fd, off])),
        Op::Fsync { .. } => call(libc::SYS_fsync, [fd, 0, 0, 0, 0, 0]),
        Op::Ftruncate { len, .. } => call(libc::SYS_ftruncate, [fd, len, 0, 0, 0, 0]),
        Op::PunchHole { off, len, .. } => {
            let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
            call(libc::SYS_fallocate, [fd, mode as u64, off, len, 0, 0])
        }
        Op::Fallocate { mode, off, len, .. } => {
            call(libc::SYS_fallocate, [fd, mode.into(), off, len, 0, 0])
        }
        Op::FadviseDontneed { off, len, .. } => {
            let advice = libc::POSIX_FADV_DONTNEED as u64;
            call(libc::SYS_fadvise64, [fd, off, len, advice, 0, 0])
        }
        Op::SyncFileRange {
            off, len, flags, ..
        } => call(
            libc::SYS_sync_file_range,
            [fd, off, len, flags.into(), 0, 0],
        ),
        Op::Seal { seals, .. } => {
            let add = libc::F_ADD_SEALS as u64;
            call(libc::SYS_fcntl, [fd, add, seals.into(), 0, 0, 0])
        }
        Op::Pwrite { off, byte, .. } => {
            // The processes are forks of this one: static data has the address that it has here.
            let from = &raw const BYTES[usize::from(byte)];
            call(libc::SYS_pwrite64, [fd, from as u64, 1, off, 0, 0])
        }
        _ => None,
    }
}

/// Returns the request for a system call with these arguments.
pub(super) fn system_call(nr: libc::c_long, args: [u64; 6]) -> Request {
    let [a, b, c, d, e, f] = args;
    request_of(CALL, &[nr as u64, a, b, c, d, e, f])
}

fn call(nr: libc::c_long, args: [u64; 6]) -> Option<Request> {
    Some(system_call(nr, args))
}
